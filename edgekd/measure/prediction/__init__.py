"""Latency prediction: kernel costs, deviations from them, and the choice of kernels to measure next."""
