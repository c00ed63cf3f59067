"""One reader for what models answer."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from edgekd.students.logits import answering_logits, described, logits_in

LOGITS, FEATURES, MAPS = torch.ones(2, 3), torch.zeros(2, 5), torch.zeros(2, 4, 8, 8)


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor
    loss: Tensor | None = None


Pair = namedtuple("Pair", ["features", "logits"])


@pytest.mark.parametrize(
    "answer",
    [
        LOGITS,
        (LOGITS, FEATURES),
        [LOGITS],
        {"logits": LOGITS, "features": FEATURES},
        {"out": LOGITS, "maps": MAPS},
        OrderedDict(loss=None, logits=LOGITS),
        Output(LOGITS, FEATURES),
        Pair(FEATURES, LOGITS),
    ],
)
def test_logits_are_found_in_every_shape_of_an_answer(answer):
    assert logits_in(answer) is LOGITS


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"a": LOGITS, "b": FEATURES}, "dict with a, b"),
        ((), "a tuple of 0"),
        (7, "int"),
        (Output(None, MAPS), "Output with logits, hidden, loss"),
    ],
)
def test_an_answer_without_them_is_described(answer, said):
    assert logits_in(answer) is None
    assert described(answer) == said


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.layer(x)
        return {"logits": found, "doubled": found * 2}


def test_a_module_answers_with_logits_alone_under_its_own_names():
    module = answering_logits(Two().eval())
    again = copy.deepcopy(module)
    assert again(torch.zeros(2, 4)).shape == (2, 3)
    program = torch.export.export(again, (torch.zeros(2, 4),))
    assert list(program.state_dict) == ["layer.weight", "layer.bias"]
    (output,) = [node for node in program.graph.nodes if node.op == "output"]
    assert len(output.args[0]) == 1
