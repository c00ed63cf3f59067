"""Shapes of inputs with free axes, and inputs that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.agent.runtimes.base import Refusal, Tensor, made_up, settled

IMAGE = ("x", [None, 3, None, None])


def test_a_free_batch_is_one_and_what_is_asked_for_is_taken() -> None:
    assert settled([("x", [None, 3]), ("y", [2])], {}) == [(1, 3), (2,)]
    assert settled([IMAGE], {"x": [2, 3, 32, 48]}) == [(2, 3, 32, 48)]
    assert settled([IMAGE], {"": [2, 3, 32, 48], "y": [1]}) == [(2, 3, 32, 48)]


def test_another_axis_than_the_batch_is_asked_for() -> None:
    with pytest.raises(Refusal, match=r"input `x` is \?x3x\?x\?: ask for a shape, as --shape x=1x3x224x224"):
        settled([IMAGE, ("y", [2])], {"y": [2]})


@pytest.mark.parametrize("asked", [[1, 4, 32, 32], [1, 3, 32], []])
def test_what_does_not_fit_is_refused(asked: list[int]) -> None:
    with pytest.raises(Refusal, match=r"input `x` is \?x3x\?x\?, not"):
        settled([IMAGE], {"x": asked})


def test_only_numbers_can_be_made_up() -> None:
    made = made_up([Tensor(name, name, (2,)) for name in ("float16", "uint8", "int64", "bool", "float64")], 1)
    assert [array.dtype.name for array in made] == ["float16", "uint8", "int64", "bool", "float64"]
    assert not np.any(made[2])
    with pytest.raises(Refusal, match="input `words` is of string: only numbers"):
        made_up([Tensor("words", "string", (2,))], 1)


def test_a_shape_for_no_input_is_refused() -> None:
    with pytest.raises(Refusal, match="a shape was asked for `inptu`, its inputs are `x`"):
        settled([("x", [None, 3])], {"inptu": [8, 3]})
    with pytest.raises(Refusal, match="a shape was asked for ``, its inputs are `x`, `y`"):
        settled([("x", [None, 3]), ("y", [None, 2])], {"": [8, 3]})
