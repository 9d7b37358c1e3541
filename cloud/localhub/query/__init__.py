"""IoT Hub's query language: `language` reads a text into a tree, `sql` makes a tree into SQL over the hub's tables."""
