"""Samples in, answers out, whatever the model's own batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.agent.runtimes.base import Refusal, Runtime, Tensor, TimedOperator, check_inputs
from edgekd.agent.samples import run_samples


class Doubler(Runtime):
    """Doubles its input, so many rows at a time."""

    def __init__(self, batch: int) -> None:
        self.tensor = Tensor("x", "int8", (batch, 2))

    def inputs(self) -> list[Tensor]:
        return [self.tensor]

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        check_inputs([self.tensor], inputs)
        self.call = lambda: None
        self.answer = inputs[0] * 2

    def read(self) -> list[np.ndarray[Any, Any]]:
        return [self.answer]

    def profile(self, path: str, calls: int) -> list[TimedOperator]:
        return []


def save(folder: Path, array: np.ndarray[Any, Any]) -> list[str]:
    np.save(folder / "x.npy", array)
    return [str(folder / "x.npy")]


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_every_sample_once_and_in_order(batch: int, tmp_path: Path) -> None:
    samples = np.arange(14, dtype=np.int8).reshape(7, 2)
    (path,) = run_samples(Doubler(batch), save(tmp_path, samples), str(tmp_path), lambda: None)
    np.testing.assert_array_equal(np.load(path), samples * 2)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros((3, 2), np.float32), "should be int8 samples"),
        (np.zeros((3, 5), np.int8), "found int8 samples"),
        (np.zeros((0, 2), np.int8), "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(samples: np.ndarray[Any, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=said):
        run_samples(Doubler(1), save(tmp_path, samples), str(tmp_path), lambda: None)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickle|Python objects"):
        run_samples(Doubler(1), [str(tmp_path / "x.npy")], str(tmp_path), lambda: None)
