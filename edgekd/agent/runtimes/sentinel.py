"""A fixed piece of work timed beside every batch, so that a change of the machine is seen as such.

A chain of single-threaded float32 matrix products in numpy, about 100 us on a laptop core. It needs no file.
"""

from __future__ import annotations

from typing import Any, List, Sequence

import numpy as np

from edgekd.agent.runtimes.base import Runtime, Tensor, TimedOperator

__all__ = ["PROVIDERS", "Sentinel", "open_runtime"]

PROVIDERS = ("none",)

_SIZE, _LINKS = 96, 4


class Sentinel(Runtime):
    """See the file's description."""

    def load(self, path: str) -> None:
        del path
        random = np.random.RandomState(0)
        self.links = [(random.standard_normal((_SIZE, _SIZE)) / _SIZE**0.5).astype(np.float32) for _ in range(_LINKS)]
        self.places = [np.empty((_SIZE, _SIZE), np.float32) for _ in range(_LINKS)]

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        del inputs
        multiply, links, places = np.matmul, self.links, self.places

        def call() -> None:
            value = links[0]
            for link, place in zip(links, places):
                value = multiply(value, link, out=place)

        self.call = call

    def inputs(self) -> List[Tensor]:
        return []

    def outputs(self) -> List[Tensor]:
        return [Tensor("product", "float32", (_SIZE, _SIZE))]

    def read(self) -> List[np.ndarray[Any, Any]]:
        return [self.places[-1].copy()]

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        del path, calls
        return []


def open_runtime(provider: str, threads: int) -> Runtime:
    """The sentinel; it is always single-threaded, by the environment its worker is started with."""
    del provider, threads
    return Sentinel()
