"""The local inference endpoint: Open Inference Protocol v2 over HTTP, on ONNX Runtime."""
