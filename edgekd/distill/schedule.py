"""The learning rate of every step: a linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017,
arXiv 1608.03983, without restarts).
"""

from __future__ import annotations

import math

__all__ = ["learning_rate"]


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The rate for one step of ``steps``, counted from 0. The first step is never at zero."""
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))
