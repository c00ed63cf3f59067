"""Ways to rank candidates by accuracy for less than a full recipe; each scores them quantized, as they will ship."""
