"""Contract of a Task:

- `spec` is complete: a shape (C, H, W), (C, T) or, of ids, (T,); classes, a positive std, labels, none or one a class;
- every split is channel-first, of the stated type and range, with labels below `classes`, and not empty;
- where there are several heads, or another one than classification: labels as `edgekd.tasks.rows` lays them out;
- no sample is in two splits, by content, but for calibration, which may be a part of training;
- two tasks made alike have the same splits and the same `data` digest;
- the right answers score 1, wrong ones 0; `correct` has one entry a sample; shapes that don't match are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.tasks._protocol import HeadSpec, Rows, SplitName, Task, TaskSpec, sizes_of
from edgekd.tasks.rows import ABSENT, IGNORED, NOTHING, UNKNOWN, empty_rows

__all__ = ["TaskContract", "perfect_answers"]

_NAMES: tuple[SplitName, ...] = get_args(SplitName)


class TaskContract:
    """Subclass it, override ``make_task``, and pytest runs every check on your task."""

    @pytest.fixture
    def make_task(self) -> Callable[[], Task]:
        """A function that makes the same task each time it is called."""
        raise NotImplementedError("override the fixture `make_task`")

    def test_spec_is_complete(self, make_task: Callable[[], Task]) -> None:
        spec = make_task().spec
        packed = spec.input.text is not None or spec.input.named
        assert len(spec.input.shape) in ((1,) if packed else (2, 3))
        for head in spec.heads:
            assert head.classes >= (2 if head.kind in ("classification", "segmentation") else 1)
            assert len(head.labels) in (0, head.classes)
        channels = spec.input.shape[0]
        assert len(spec.input.mean) in (1, channels)
        assert len(spec.input.std) in (1, channels)
        assert min(spec.input.std) > 0
        assert len(spec.data) == 64

    @pytest.mark.parametrize("name", _NAMES)
    def test_split_is_as_specified(self, make_task: Callable[[], Task], name: SplitName) -> None:
        task = make_task()
        split, spec = task.split(name), task.spec
        assert split.name == name
        assert len(split) > 0 or name == "train"  # students may learn from the teacher alone
        assert split.inputs.shape == (len(split), *spec.input.shape)
        assert split.inputs.dtype == np.dtype(spec.input.raw_dtype)
        if spec.plain:
            assert split.labels.dtype == np.int64
            assert split.labels.min(initial=0) >= 0
            assert split.labels.max(initial=0) < spec.head.classes
        else:
            assert split.labels.shape == (len(split),)
            for head in spec.heads:
                _check_labels(head, split.labels[head.name], spec.input.shape)
        if len(split) and name != "test":  # a range found in the training data may be left by a test sample
            assert spec.input.raw_range[0] <= float(split.inputs.min())
            assert float(split.inputs.max()) <= spec.input.raw_range[1]

    def test_no_sample_is_in_two_splits(self, make_task: Callable[[], Task]) -> None:
        task = make_task()
        contents = {name: {sample.tobytes() for sample in task.split(name).inputs} for name in _NAMES}
        for place, one in enumerate(_NAMES):
            for other in _NAMES[place + 1 :]:
                if {one, other} == {"train", "calibration"}:
                    continue  # ranges of activations need no held-out samples
                assert not contents[one] & contents[other], f"{one} and {other} share samples"

    def test_sizes_are_those_of_the_splits(self, make_task: Callable[[], Task]) -> None:
        task = make_task()
        sizes = sizes_of(task)
        for name in _NAMES:
            found = getattr(sizes, name)
            assert found is None or found == len(task.split(name)), name
        if sizes.calibrated_on == "train":
            training = {sample.tobytes() for sample in task.split("train").inputs}
            assert {sample.tobytes() for sample in task.split("calibration").inputs} <= training

    def test_made_twice_is_the_same(self, make_task: Callable[[], Task]) -> None:
        one, two = make_task(), make_task()
        assert one.spec == two.spec
        digests = [one.split(name).digest for name in _NAMES]
        assert digests == [two.split(name).digest for name in _NAMES]
        assert len(set(digests)) >= len(_NAMES) - 1  # calibration may be all of training
        assert np.array_equal(one.split("train").inputs, two.split("train").inputs)

    def test_score_counts_right_answers(self, make_task: Callable[[], Task]) -> None:
        task = make_task()
        labels = task.split("validation").labels
        if not task.spec.plain:
            best = task.score(perfect_answers(task.spec, labels), labels)
            assert best.value == pytest.approx(1.0, abs=1e-6)
            assert best.samples == len(labels)
            assert len(best.parts) == (len(task.spec.heads) if task.spec.more else 0)
            return
        right = np.eye(task.spec.head.classes, dtype=np.float32)[labels]
        best = task.score(right, labels)
        assert best.value == 1.0
        assert best.samples == len(labels)
        assert best.correct == (True,) * len(labels)
        assert task.score(-right, labels).value == 0.0

    def test_score_refuses_other_shapes(self, make_task: Callable[[], Task]) -> None:
        task = make_task()
        labels = task.split("validation").labels
        outputs = empty_rows(task.spec, len(labels) + 1)
        with pytest.raises(ValueError, match="match"):
            task.score(outputs, labels)


def perfect_answers(spec: TaskSpec, labels: Rows) -> Rows:
    """Answers of a student that knows all labels of a task with several heads."""
    rows = empty_rows(spec, len(labels))
    for head in spec.heads:
        own = labels[head.name]
        if head.kind == "classification":
            rows[head.name] = np.eye(head.classes, dtype=np.float32)[own]
        elif head.kind == "multilabel":
            rows[head.name] = np.where(own == 1, 1.0, -1.0)
        elif head.kind == "regression":
            rows[head.name] = np.where(np.isnan(own), 0.0, own)
        elif head.kind == "segmentation":
            rows[head.name] = np.where(own == IGNORED, 0, own)
        else:
            kept = min(own.shape[1], head.objects)
            for part in ("boxes", "scores", "classes"):
                rows[f"{head.name}.{part}"] = 0
            rows[f"{head.name}.boxes"][:, :kept] = own[:, :kept, :4]
            rows[f"{head.name}.scores"][:, :kept] = own[:, :kept, 4] > NOTHING
            rows[f"{head.name}.classes"][:, :kept] = np.maximum(own[:, :kept, 4], 0)
    return rows


def _check_labels(head: HeadSpec, labels: NDArray[Any], shape: tuple[int, ...]) -> None:
    if head.kind == "classification":
        assert labels.dtype == np.int64
        assert labels.min() >= ABSENT
        assert labels.max() < head.classes
    elif head.kind == "multilabel":
        assert labels.dtype == np.int8
        assert labels.shape[1:] == (head.classes,)
        assert set(np.unique(labels)) <= {ABSENT, 0, 1}
    elif head.kind == "regression":
        assert labels.dtype == np.float32
        assert labels.shape[1:] == (head.classes,)
        assert not np.isinf(labels).any()
    elif head.kind == "segmentation":
        assert labels.dtype == np.uint8
        assert labels.shape[1:] == shape[1:]
        assert labels[labels != IGNORED].max(initial=0) < head.classes
    else:
        assert labels.dtype == np.float32
        assert labels.shape[2] == 6
        assert labels[:, :, 4].min() >= UNKNOWN
        assert labels[:, :, 4].max() < head.classes
        boxes = labels[labels[:, :, 4] > NOTHING]
        assert (boxes[:, 2:4] > boxes[:, :2]).all()
        assert boxes[:, :4].min() >= 0
        assert (boxes[:, 2] <= shape[2]).all()
        assert (boxes[:, 3] <= shape[1]).all()
