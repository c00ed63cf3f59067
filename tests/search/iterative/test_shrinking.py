from __future__ import annotations

import pytest

from edgekd.artefacts import Backend
from edgekd.evidence import AccuracyKind, EvidenceKind, Figure
from edgekd.ir.space import Arch, Axis, Condition, Space
from edgekd.search.iterative.shrinking import chosen_step, gain_wanted, next_steps, why_stopped
from edgekd.store.records import Accuracy, RoundObservation, RoundOption, RoundRecord
from edgekd.targets.target import Target
from edgekd.targets.verdict import judge

SPACE = Space(axes=(Axis(name="blocks", choices=(1, 2, 3)), Axis(name="keep", choices=(0.5, 1.0))))
WHOLE, ORT = Arch.of({"blocks": 3, "keep": 1.0}), Backend.model_validate("onnxruntime/cpu")
TARGET = Target.model_validate(
    {
        "name": "small",
        "device": "fake",
        "backends": ["onnxruntime/cpu"],
        "budgets": {"latency": {"p95": "100 us"}, "size": {"file": "1 KiB"}},
        "accuracy": {"floor": 0.9},
    }
)


def option(arch=WHOLE, low=100.0, size=1000, accuracy=0.9):
    return RoundOption(arch=arch, p5_us=low, size_bytes=size, accuracy=accuracy)


def record(p95=90.0, size=1000.0, accuracy=0.95, arch=WHOLE, **changes):
    def figure(metric, value, unit):
        return Figure(metric=metric, value=value, unit=unit, kind=EvidenceKind.MEASURED, subject="s", method="m")

    figures = (figure("latency.p95", p95, "us"), figure("size.file", size, "B"), figure("accuracy", accuracy, ""))
    observation = RoundObservation(backend=ORT, measurement=None, figures=figures, verdict=judge(TARGET, figures))
    scored = Accuracy(value=accuracy, kind=AccuracyKind.TORCH, split="validation", samples=9, method="m")
    given = {
        "number": 1,
        "before": None,
        "options": (),
        "arch": arch,
        "accuracy": scored,
        "observations": (observation,),
    }
    return RoundRecord(**{**given, **changes})


def test_a_step_is_one_choice_of_one_axis():
    assert next_steps(SPACE, WHOLE) == (Arch.of({"blocks": 2, "keep": 1.0}), Arch.of({"blocks": 3, "keep": 0.5}))
    assert next_steps(SPACE, Arch.of({"blocks": 1, "keep": 0.5})) == ()


def test_the_step_that_gains_most_for_what_it_costs():
    cheap, dear = option(low=80.0, accuracy=0.88), option(low=50.0, accuracy=0.5)
    assert chosen_step(option(), [dear, cheap], "time", 0.02, 0.01) == cheap
    free, freer = option(low=90.0, accuracy=0.95), option(low=85.0, accuracy=0.899)
    assert chosen_step(option(), [free, freer], "time", 0.02, 0.01) == freer  # neither costs anything to speak of


@pytest.mark.parametrize(
    "useless",
    [option(low=99.0), option(low=96.0, size=1), option(low=None), option(low=50.0, accuracy=None), option(low=130.0)],
)
def test_what_gains_too_little_or_nothing_known_is_not_taken(useless):
    assert chosen_step(option(), [useless], "time", 0.02, 0.05) is None


def test_bytes_are_gained_where_they_are_what_is_missing():
    small = option(low=120.0, size=500)
    assert chosen_step(option(), [small], "size", 0.02, 0.5) == small
    assert gain_wanted(TARGET, record(p95=90.0, size=2000.0)) == "size"
    assert gain_wanted(TARGET, record(p95=200.0, size=2000.0)) == "time"
    assert gain_wanted(TARGET, record(accuracy=0.1)) == "time"
    assert gain_wanted(TARGET, record(observations=())) == "time"


def test_when_it_ends():
    assert why_stopped(record(p95=200.0), 0.9) == ""
    assert "below the floor" in why_stopped(record(accuracy=0.8), 0.9)
    assert why_stopped(record(accuracy=0.8), None) == ""
    assert why_stopped(record(observations=()), 0.9) == "it ran on no backend"
    assert why_stopped(record(arch=None, options=(option(),)), 0.9) == "no smaller step gains enough"
    assert why_stopped(record(arch=None), 0.9) == "there is no smaller step in the space"


def test_the_best_backend_is_one_that_holds():
    fast, slow = record(p95=10.0, size=3000.0).observations[0], record().observations[0]
    assert record(observations=(fast, slow)).best == slow


def test_a_category_is_no_step_and_what_loses_its_meaning_goes_along():
    deep = (Condition(axis="blocks", choices=(1,)),)
    space = Space(
        axes=(
            Axis(name="blocks", choices=(0, 1)),
            Axis(name="kind", choices=("thin", "thick")),
            Axis(name="keep", choices=(0.5, 1.0), when=deep),
        )
    )
    steps = next_steps(space, Arch.of({"blocks": 1, "keep": 1.0, "kind": "thick"}))
    assert list(steps) == [
        Arch.of({"blocks": 0, "kind": "thick"}),
        Arch.of({"blocks": 1, "keep": 0.5, "kind": "thick"}),
    ]
