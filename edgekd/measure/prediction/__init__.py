"""Latency predictors: kernel costs, deviations from them, and which kernels to measure next."""
