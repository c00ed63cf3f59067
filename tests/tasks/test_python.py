"""Tasks from a person's own function."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks.digits import Digits
from edgekd.tasks.named_inputs import unpack
from edgekd.tasks.python import PythonTask
from edgekd.testing.contracts.task import TaskContract

_number = itertools.count()

ARRAYS = """
import numpy as np
def task():
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (200, 6, 6)).astype(np.uint8)
    labels = np.arange(200) % 4
    return {"x_train": inputs[:150], "y_train": labels[:150], "x_test": inputs[150:], "y_test": labels[150:]}
"""


def task(folder, source: str, **options) -> PythonTask:
    name = f"own_task_{next(_number)}"  # a module of one name is imported once a process
    (folder / f"{name}.py").write_text(source)
    return PythonTask.model_validate({"module": f"{name}.py:task", **options}, context={"folder": folder})


class TestArrays(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        made = task(tmp_path, ARRAYS, calibration=20)
        return lambda: made.but()


class TestOwnTask(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        return lambda: task(tmp_path, "from edgekd.tasks.digits import Digits\ndef task():\n    return Digits()\n")


SEVERAL = """
import numpy as np
def task():
    rng = np.random.default_rng(0)
    def part(count):
        inputs = {
            "picture": rng.standard_normal((count, 3, 6, 6)).astype(np.float32),
            "words": rng.integers(0, 40, (count, 7)),
            "numbers": rng.random((count, 2)),
        }
        return inputs, np.arange(count) % 4
    (x_train, y_train), (x_test, y_test) = part(150), part(50)
    return {"x_train": x_train, "y_train": y_train, "x_test": dict(reversed(x_test.items())), "y_test": y_test}
"""


class TestSeveralInputs(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        made = task(tmp_path, SEVERAL, calibration=20)
        return lambda: made.but()


def test_several_inputs_are_the_parts_of_one_packed_sample(tmp_path):
    made = task(tmp_path, SEVERAL, calibration=20)
    given = made.spec.input
    assert str(given) == "picture 3 x 6 x 6 float32, words 7 int32, numbers 2 float32"
    assert (given.shape, given.what, given.named[1].highest) == ((3 * 36 + 7 + 2,), "samples", 39)
    picture, words, numbers = unpack(given.named, made.split("test").inputs)
    assert (picture.shape, words.shape, numbers.shape) == ((50, 3, 6, 6), (50, 7), (50, 2))
    assert words.dtype == np.int32  # in the order of training, though the test arrays came in another
    assert words.max() == 39
    drawn = unpack(given.named, given.random(0, 8))
    assert drawn[1].min() >= 0
    assert drawn[1].max() <= 39


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("(count, 2))", "(count,))", r"`numbers` is \(150,\)"),
        ("0, 40, (count, 7)", "-1, 40, (count, 7)", "whole numbers from -1 to 39"),
        ("rng.random((count, 2))", "rng.random((count, 2)) > 0.5", "`numbers` is bool"),
        ("(count, 7)", "(count + 1, 7)", "`words` has 151 samples, and `picture` has 150"),
        ("(count, 2))", "(count, count))", "numbers 50 float32` is `numbers 150 float32` in another split"),
        ("dict(reversed(x_test.items()))", "{'picture': x_test['picture']}", "the inputs are picture, and another"),
        (
            "dict(reversed(x_test.items()))",
            "x_test['picture']",
            "some splits are mappings of inputs, and others arrays",
        ),
        ('"x_train": x_train', '"x_train": {"words": x_train["words"]}', "a mapping of 1 arrays"),
        ('"numbers": rng', '"my numbers": rng', "`my numbers` is no name of an input"),
    ],
)
def test_inputs_that_no_model_can_take_are_refused(tmp_path, old, new, said):
    assert old in SEVERAL
    with pytest.raises(ConfigurationError, match=said):
        task(tmp_path, SEVERAL.replace(old, new)).spec  # noqa: B018  # reading it is the test


@pytest.mark.parametrize("options", [{"mean": [0.5], "std": [0.5]}, {"per_channel": True}, {"layout": "nct"}])
def test_options_of_one_input_are_refused(tmp_path, options):
    with pytest.raises(ConfigurationError, match=f"returns several inputs, and `{next(iter(options))}` is for one"):
        task(tmp_path, SEVERAL, **options).spec  # noqa: B018  # reading it is the test


def test_an_own_task_is_asked_for_everything(tmp_path):
    own = task(tmp_path, "from edgekd.tasks.digits import Digits\ndef task():\n    return Digits(calibration=64)\n")
    assert own.spec == Digits(calibration=64).spec


NARROW = """
from edgekd.tasks.digits import Digits
from dataclasses import replace
class Narrow(Digits):
    def split(self, name):
        found = super().split(name)
        return replace(found, labels=found.labels.astype("int32"))
def task():
    import numbers_beside
    return Narrow()
"""


def test_labels_of_another_type_are_refused(tmp_path):
    (tmp_path / "numbers_beside.py").write_text("")  # imported while the function runs
    with pytest.raises(ConfigurationError, match="labels of the train split are int32"):
        _ = task(tmp_path, NARROW).spec


LEAKING = """
from edgekd.tasks.digits import Digits
class Leaking(Digits):
    def split(self, name):
        return super().split("test" if name == "validation" else name)
def task():
    return Leaking()
"""


def test_a_sample_in_two_splits_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="both in the validation and in the test split"):
        _ = task(tmp_path, LEAKING).spec


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def task():\n    return {'x_train': 0}\n", "y_train"),
        ("def task():\n    return 7\n", "returned int without `spec`"),
        ("def task():\n    raise OSError('no disk')\n", "OSError: no disk"),
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("def tusk():\n    pass\n", "tusk"),
    ],
)
def test_what_is_wrong_with_the_function_is_reported(tmp_path, source, said):
    with pytest.raises(ConfigurationError, match=said):
        _ = task(tmp_path, source).spec


WRONG = """
from edgekd.tasks.digits import Digits
from dataclasses import replace
class Wrong(Digits):
    @property
    def spec(self):
        return Digits().spec.but({spec})
    def split(self, name):
        return replace(super().split(name), {split})
def task():
    return Wrong()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "split", "said"),
    [
        ("head=Digits().spec.head.but(classes=9, labels=())", "name=name", "labels of the train split go from 0 to 9"),
        (
            "input=Digits().spec.input.but(shape=(1, 9, 9))",
            "name=name",
            r"inputs of the train split are uint8 \(\d+, 1, 8",
        ),
        ("input=Digits().spec.input.but(raw_dtype='float32')", "name=name", "inputs of the train split are uint8"),
        ("", "inputs=super().split(name).inputs[:0]", r"are uint8 \(0, 1, 8, 8\)"),
        ("", "labels=super().split(name).labels[:-1]", r"labels of the train split are \(\d+,\)"),
        ("", "labels=super().split(name).labels - 1", "go from -1 to 8"),
    ],
)
def test_what_the_spec_promises_is_asked_of_each_split(tmp_path, spec, split, said):
    with pytest.raises(ConfigurationError, match=said):
        _ = task(tmp_path, WRONG.replace("{spec}", spec).replace("{split}", split)).spec


SHAPES = """
from dataclasses import replace
from edgekd.tasks.shapes import Shapes
class Own:
    def __init__(self):
        self.inner = Shapes(train=40, test=10, validation=10, calibration=10, side=32)
        self.spec = self.inner.spec
    def split(self, name):
        split = self.inner.split(name)
        {spoilt}
        return split
    def score(self, outputs, labels):
        return self.inner.score(outputs, labels)
def task():
    return Own()
"""


class TestOwnTaskWithHeads(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        made = task(tmp_path, SHAPES.format(spoilt=""))
        return lambda: made.but()


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ("split = replace(split, labels=split.labels['scene'])", "a record array"),
        ("split = replace(split, labels=split.labels[['scene', 'mask']])", "no field `things`"),
        ("split.labels['mask'][0, 0, 0] = 9", "`mask` go up to 9"),
        (
            "split = replace(split, labels=split.labels.astype([('scene', 'i4'), ('things', 'f4', (4, 6)), "
            "('mask', 'u1', (32, 32))]))",
            "`scene` are int32",
        ),
    ],
    ids=["plain", "lost", "class", "type"],
)
def test_labels_of_several_heads_are_looked_at(tmp_path, spoilt, said):
    with pytest.raises(ConfigurationError, match=said):
        _ = task(tmp_path, SHAPES.format(spoilt=spoilt)).spec
