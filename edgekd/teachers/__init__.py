"""Teachers: where knowledge comes from, and the cache of what they said.

A teacher is a frozen record of its options that answers raw-unit batches with logits and normalises them itself.
`binding.bind` fits one to a task and checks that both mean the same classes.
"""
