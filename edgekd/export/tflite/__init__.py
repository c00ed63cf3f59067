"""TFLite export, for LiteRT."""
