"""A task that is learned in a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from edgekd.search._protocol import EstimateContext
from edgekd.stages import Stage
from edgekd.students._protocol import Family
from edgekd.testing.fakes.bars import BarTask


@pytest.fixture(scope="session")
def bars() -> BarTask:
    """The task itself."""
    return BarTask()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Nets this small are slower on several threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def context_of() -> Callable[[Family, Sequence[Stage]], Callable[[Path], EstimateContext]]:
    """A maker of contexts under a folder."""

    def of(family: Family, recipe: Sequence[Stage]) -> Callable[[Path], EstimateContext]:
        return lambda folder: EstimateContext(
            task=BarTask(),
            teacher=None,
            family=family,
            recipe=recipe,
            fingerprint=None,
            students=folder / "students",
            stages=folder / "stages",
            cache=folder / "cache",
            seed=0,
            progress=lambda _: None,
            stop=lambda: False,
        )

    return of
