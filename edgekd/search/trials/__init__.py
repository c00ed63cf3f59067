"""Trials: propose, make and measure candidates until the time is spent."""
