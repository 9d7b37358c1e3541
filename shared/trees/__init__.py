"""Boosted tree ensembles: four arrays, which travel and are stored; a torch module, to measure; ONNX, to be served."""
