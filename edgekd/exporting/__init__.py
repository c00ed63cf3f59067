"""Export of a user's own model: converted, quantized, compared with the original, bundled and certified."""
