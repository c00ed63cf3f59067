"""Tasks: data, its four splits, and the metric. A task is a frozen record of its options; data is read when asked for.

Inputs stay in the raw units they came in (a `uint8` picture stays one); `InputSpec` says how a student sees them.
Splits are disjoint by content and the same on every machine, because each sample's own hash decides where it goes.
"""
