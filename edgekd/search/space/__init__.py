"""Archs of the space: the constraint filter, predicted and analytic costs, what is already known."""
