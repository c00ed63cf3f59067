"""Supernet: all archs of a space in one network, the choice probabilities, and block costs."""
