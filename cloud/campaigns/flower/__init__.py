"""Flower, the only folder of the coordinator that touches it: strategies by name, and a Grid over our work rows."""
