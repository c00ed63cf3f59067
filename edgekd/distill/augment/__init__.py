"""How samples are seen while training: one transformation a file, each a frozen record that is a `View`.

A view is a seed: what sample i looks like under a seed is a hash of (seed, i), never of the batch it comes in. So a
teacher can answer a view once, ahead of time, and the student sees the same pixels later, in any order.
"""
