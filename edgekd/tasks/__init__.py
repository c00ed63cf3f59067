"""Tasks: data, its four splits, and the metric. A task is a frozen record of options; data is read on demand.

Inputs stay in raw units (a `uint8` picture stays one); `InputSpec` defines the normalisation for a student. Splits are
disjoint by content and the same on every machine, because each sample's own hash decides its split.
"""
