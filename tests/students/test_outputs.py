"""One reader for what models answer."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.students.outputs import answering, answering_logits, described, logits_in, misfit, raw_of
from edgekd.students.own import require_fit
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

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


RAW = {"scene": torch.randn(2, 3), "things.heat": torch.randn(2, 2, 4, 5), "things.box": torch.randn(2, 4, 4, 5)}
THINGS = HeadSpec(name="things", kind="detection", classes=2, objects=4)
AGE = HeadSpec(name="age", kind="regression", classes=1, mean=(40.0,), std=(10.0,))
MASK = HeadSpec(name="mask", kind="segmentation", classes=4)


def test_networks_may_name_their_raw_outputs_or_not():
    heads = (HeadSpec(name="scene", classes=3), THINGS)
    assert raw_of(RAW, heads) == RAW
    pair = (RAW["things.heat"], RAW["things.box"])
    assert list(raw_of(pair, (THINGS,)) or {}) == ["things.heat", "things.box"]
    assert raw_of(pair[0], (THINGS,)) is None
    assert raw_of({"scene": RAW["scene"]}, heads) is None


def test_one_raw_output_may_be_called_logits():
    assert raw_of(Output(MAPS, FEATURES), (MASK,)) == {"mask": MAPS}
    assert raw_of({"logits": MAPS, "aux": FEATURES}, (MASK,)) == {"mask": MAPS}
    assert raw_of({"logits": MAPS}, (MASK, AGE)) is None


@pytest.mark.parametrize(
    ("answer", "heads", "said"),
    [
        (LOGITS, (THINGS,), "(2, 3), where `things.heat`, `things.box` were expected"),
        (LOGITS, (MASK,), "(2, 3) for segmentation `mask`, where (N, 4, h, w) was expected"),
        ((RAW["things.heat"], MAPS[:, :3]), (THINGS,), "(2, 3, 8, 8) for detection `things.box`"),
        ({"out": MAPS}, (MASK,), "dict with out, where `mask` or `logits` was expected"),
        (
            (RAW["things.heat"], RAW["things.box"][..., :2]),
            (THINGS,),
            "maps of (4, 2) and (4, 5) for detection `things`",
        ),
        (FEATURES[:, 0], (AGE,), "(2,) for regression `age`, where (N, 1) was expected"),
        ((LOGITS[:1], MAPS), (HeadSpec(name="scene", classes=3), MASK), "(1, 3) for classification `scene`"),
    ],
)
def test_a_shape_that_no_head_has_is_named(answer, heads, said):
    assert misfit(answer, heads, 2).startswith(said)


def test_fields_of_an_object_may_have_other_names():
    boxes = namedtuple("Boxes", ["heat", "box"])(RAW["things.heat"], RAW["things.box"])
    assert list(raw_of(boxes, (THINGS,)) or {}) == ["things.heat", "things.box"]


def test_raw_outputs_that_fit_have_no_misfit():
    assert not misfit(RAW, (HeadSpec(name="scene", classes=3), THINGS), 2)
    assert not misfit(MAPS, (MASK,), 2)


class Ages(nn.Module):
    def __init__(self, numbers: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(4, numbers, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean(1))


AGES = TaskSpec(name="ages", input=InputSpec(shape=(2, 4)), head=AGE, data="0" * 64)


def test_numbers_are_standardised_by_the_layer_that_makes_them():
    module, batch = Ages(), torch.randn(2, 2, 4)
    in_years = module(batch)
    standardised = answering(copy.deepcopy(module), AGES)
    assert torch.allclose(standardised(batch)["age"], (in_years - 40) / 10, atol=1e-5)
    assert torch.allclose(standardised.layer.weight, module.layer.weight / 10)


@pytest.mark.parametrize("numbers", [2, 3])
def test_another_count_of_numbers_stays_as_it_is_and_is_named(numbers):
    head = AGE.but(classes=4, mean=(1.0,) * 4, std=(2.0,) * 4)
    module = answering(Ages(numbers), AGES.but(head=head))
    with pytest.raises(
        ConfigurationError, match=rf"\(2, {numbers}\) for regression `age`, where \(N, 4\) was expected"
    ):
        require_fit(module, AGES.but(head=head), "ages")


def test_another_output_in_training_mode_is_named():
    class Deep(Ages):
        def forward(self, x: Tensor) -> Tensor:
            return [super().forward(x)] * 2 if self.training else super().forward(x)

    with pytest.raises(ConfigurationError, match="`deep` in training mode returns a list of 2"):
        require_fit(answering(Deep().eval(), AGES), AGES, "deep")


def test_a_mask_of_a_signal_is_refused():
    spec = AGES.but(head=MASK)
    with pytest.raises(ConfigurationError, match="head `mask` is a map, and the signals"):
        require_fit(answering(Ages().eval(), spec), spec, "ages")


class Both(Ages):
    """The class is read from the numbers."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        numbers = super().forward(x)
        return numbers, torch.cat([numbers, -numbers], 1)


def test_numbers_that_another_output_reads_are_standardised_behind_the_layer():
    spec = AGES.but(more=(HeadSpec(name="old", classes=2),))
    module, batch = Both(), torch.randn(2, 2, 4)
    in_years, classes = module(batch)
    weights = module.layer.weight.clone()
    answers = answering(module, spec)(batch)
    assert torch.allclose(answers["age"], (in_years - 40) / 10)
    assert torch.equal(answers["old"], classes)
    assert torch.equal(module.layer.weight, weights)
    assert module.layer.bias is None


def test_want_of_memory_is_no_property_of_a_model():
    class Starved(Ages):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        answering(Starved(), AGES)
