"""Updates in fewer bytes: codecs with one arithmetic and two faces, the wire and the stacked rows of a simulation."""
