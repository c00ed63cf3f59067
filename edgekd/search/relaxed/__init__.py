"""A search whose choice is trained: the device's own latency, fitted and differentiable, is a term of the loss."""
