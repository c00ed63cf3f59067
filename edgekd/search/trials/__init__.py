"""Trials: proposing, making and measuring candidates until the budget is spent."""
