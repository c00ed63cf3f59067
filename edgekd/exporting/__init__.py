"""A model that a person has, exported: converted, quantized, checked against itself, bundled and certified."""
