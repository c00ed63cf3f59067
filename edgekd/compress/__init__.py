"""Making students smaller: each room changes a student's module (pruning) or its annotations (quantization)."""
