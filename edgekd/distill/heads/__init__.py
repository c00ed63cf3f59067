"""Training of several heads: loss on labels, distillation from a teacher, and loss balancing.

`objective` is the only interface of a training loop: raw outputs, labels and the teacher's raw outputs to one loss for
each head.
"""
