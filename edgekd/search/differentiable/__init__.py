"""Differentiable search: the device's latency, fitted as a differentiable model, is a term of the loss."""
