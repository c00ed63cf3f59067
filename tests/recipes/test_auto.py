from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, EdgeKDError
from edgekd.project import read_project
from edgekd.recipes.auto import Auto, standing
from edgekd.records import digest_json
from edgekd.store.records import AutoScore

RUNGS = (2, 4, 8)
PROJECT = """
schema: edgekd.project/1
task: {kind: digits}
student: {family: resnet}
target: this-computer
recipe: RECIPE
"""


def score(option, epochs, validation):
    return AutoScore(phase="loss", option=option, epochs=epochs, validation=validation)


def played(quality, rungs=RUNGS):
    """Halving to its end, each option always scored by its quality. Every training, and the leader."""
    scores = []
    while (todo := standing(list(quality), scores, rungs).todo) is not None:
        scores.append(score(*todo, quality[todo[0]]))
    return [(s.option, s.epochs) for s in scores], standing(list(quality), scores, rungs).leader


def test_the_better_half_goes_on():
    trained, leader = played({"a": 0.1, "b": 0.5, "c": 0.4, "d": 0.2, "e": 0.3})
    assert [name for name, epochs in trained if epochs == 2] == ["a", "b", "c", "d", "e"]
    assert [name for name, epochs in trained if epochs == 4] == ["b", "c", "e"]
    assert [name for name, epochs in trained if epochs == 8] == ["b", "c"]
    assert leader == "b"


def test_of_equals_the_earlier_leads_and_what_diverged_comes_last():
    assert played({"a": 0.5, "b": 0.5})[1] == "a"
    assert played({"a": None, "b": 0.1, "c": None})[1] == "b"


def test_before_a_rung_is_full_the_one_below_decides():
    names = ["a", "b"]
    assert standing(names, [], RUNGS) == (("a", 2), None)
    assert standing(names, [score("a", 2, 0.1)], RUNGS) == (("b", 2), "a")
    first = [score("a", 2, 0.1), score("b", 2, 0.2)]
    assert standing(names, first, RUNGS) == (("b", 4), "b")
    assert standing([], [], RUNGS) == (None, None)


def test_nobody_is_dropped_before_anybody_has_learned():
    rungs, quality = (2, 4), {"a": 0.15, "b": 0.1, "c": 0.05, "d": 0.12}
    scores = [score(name, 2, value) for name, value in quality.items()]
    for name in quality:
        assert standing(list(quality), scores, rungs, least=0.2).todo == (name, 4)
        scores.append(score(name, 4, 0.9 if name == "c" else 0.3))
    assert standing(list(quality), scores, rungs, least=0.2) == (None, "c")


def test_what_is_to_be_beaten_is_never_dropped():
    first = [score("a", 2, 0.3), score("b", 2, 0.6), score("c", 2, 0.5)]
    assert standing(["a", "b", "c"], first, RUNGS, kept="a").todo == ("a", 4)
    late = [score("a", 4, 0.7), score("b", 4, 0.6), score("c", 4, 0.5)]
    last = [score("a", 8, 0.9), score("b", 8, 0.8)]
    assert standing(["a", "b", "c"], first + late + last, RUNGS, kept="a") == (None, "a")


def test_what_it_tries():
    auto = Auto(epochs=30)
    assert auto.rungs == (2, 4, 8)
    assert Auto(short=1).rungs == (1,)
    losses = auto.losses()
    assert {"ce", "kd", "dkd", "dist"} <= set(losses)
    assert {stage.epochs for stage in losses.values()} == {30}
    assert {stage.learning_rate for stage in losses.values()} == {None}  # that of `distill`, by batch and weights
    views = auto.views("dist")
    assert {next(iter(stage.loss.model_dump())) for stage in views.values()} == {"ce"}  # alphabetical: ce and dist
    assert len({stage.augment.model_dump_json() for stage in views.values()}) == 3


def test_it_is_never_run_itself(student, context, tmp_path):
    (problem,) = Auto().check(student, context(tmp_path))
    assert "no loss and no views" in problem.message
    with pytest.raises(EdgeKDError, match="no loss and no views"):
        Auto().run(student, context(tmp_path))
    assert Auto().key(digest_json(1)) != Auto(short=4).key(digest_json(1))
    with pytest.raises(ValidationError):
        Auto(share=1.0)


@pytest.mark.parametrize(
    ("written", "names", "share"),
    [
        ("auto", ["auto"], 0.2),
        ("{auto: {share: 0.3}}", ["auto"], 0.3),
        ("[auto, {quantize: {precision: int8}}]", ["auto", "quantize"], 0.2),
        ("[{auto: {share: 0.4}}]", ["auto"], 0.4),
    ],
)
def test_how_it_is_written(tmp_path, written, names, share):
    (tmp_path / "project.yaml").write_text(PROJECT.replace("RECIPE", written))
    project = read_project(tmp_path / "project.yaml")
    assert [stage.name for stage in project.recipe] == names
    assert project.recipe[0].share == share
    assert project.resolved["recipe"][0]["auto"]["share"] == share


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{auto: {shares: 0.3}}", "shares"),
        ("{auto: 3}", "mapping of options"),
        ("distill", "list of stages"),
        ("[auto, auto]", "there already"),
    ],
)
def test_mistakes_are_reported_with_their_place(tmp_path, written, words):
    (tmp_path / "project.yaml").write_text(PROJECT.replace("RECIPE", written))
    with pytest.raises(ConfigurationError, match=words) as raised:
        read_project(tmp_path / "project.yaml")
    assert raised.value.problems[0].place.line == 6
