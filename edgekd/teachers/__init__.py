"""Teachers, and the cache of their logits and features.

A teacher is a frozen record of options that computes logits for batches in raw units; it normalises them itself.
`binding.bind` fits one to a task and checks that both have the same classes.
"""
