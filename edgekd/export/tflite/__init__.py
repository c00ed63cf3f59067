"""Files for LiteRT."""
