"""Training several heads at once: what each learns from labels and from a teacher, and what each is worth.

`objective` is all that a training loop needs to know: raw answers, labels and a teacher's raw answers, to one number.
"""
