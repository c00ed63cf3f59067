"""Template of a new project: commented files that run as they are, for digits, own data or an own model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekd.code_references import CodeReference
from edgekd.errors import ConfigurationError, MissingError, Place, UsageError, nearest_name
from edgekd.records import Shown
from edgekd.targets.writing import installed_backends, target_text

if TYPE_CHECKING:
    from edgekd.tasks.inspect_data import Seen

__all__ = ["BeginAnswer", "begin"]

_TARGET, _WEIGHTS, _ARRAYS = "here", "model.safetensors", "images.npz"
_ARRAYS_OF = "arrays x_train, y_train, x_test, y_test"
_BUDGETS = """\
budgets:                       # every one is optional; report: true makes one informative
  latency: {p95: 500 us}
  size: {file: 64 KiB}
accuracy: {floor: 0.90}        # the lowest score worth shipping
"""
_OWN_BUDGETS = """\
budgets:                       # shares of what the model itself takes in float32, measured first; or 5 ms, 4 MiB
  latency: {p50: 60 % of own}
  size: {file: 60 % of own}
accuracy: {drop: 2 %}          # points below the model as it came, at the most; or {floor: 0.90}
"""

_SEARCHED_BUDGETS = """\
budgets:                       # yours; every one is optional, and report: true makes one informative
  latency: {p95: 5 ms}
  size: {file: 1 MiB}
"""

_TEACHER_STEPS, _STEPS, _SHORT_STEPS = 2000, 6000, 200  # of a teacher, of a student, and of one that estimates
# Fewer images than that are seen in more ways and for longer: with one seed, a small student of 518 pictures came from
# 43 % to 45 with 20 views instead of 4, to 48 with three times the epochs, to 54 with mixup (Beyer et al. 2022). Its
# teacher had learned 50,000 others. With a teacher trained on the 518 it had 42 % before, and 41 with views and mixup
_FEW, _LONGER, _ANSWERS = 2560, 2, 20_000

_SEARCHED = """\
# The most accurate student for your data that meets here.yaml, measured on this computer.
# Seen: __WORDS__.
# Try it:  edgekd search project.yaml
schema: edgekd.project/1

task:
__TASK__
  # flip: true                 # where a mirrored picture keeps its class

teacher:                       # a wider network, trained once and kept in the cache; a model of yours knows more:
  kind: train                  # kind: torch, onnx, tflite, keras, timm or huggingface
  width: __WIDTH__
  depth: 2
  epochs: __TAUGHT__

student:
  family: resnet
__STAGES__  space: __SPACE____STRIDE__}

target: here                   # here.yaml, beside this file: the device and the budgets

recipe:                        # what a student goes through before it ships; `recipe: auto` is chosen for you
  - distill:
      loss: {kd: {temperature: 4, weight: 0.9}}   # what else there is: edgekd losses
      epochs: __EPOCHS__
__VIEWS__
search: {budget: 30 min, seed: 0, accuracy: {short: {epochs: __SHORT__}}}

export: {input: __INPUT__, layout: nhwc, preprocess: fold, batch: 1}
"""

_SIGNALS = """\
# The most accurate student for your signals that meets here.yaml, measured on this computer.
# Seen: __WORDS__.
# Try it:  edgekd search project.yaml
schema: edgekd.project/1

task:
__TASK__

teacher:                       # a wider network, trained once and kept in the cache
  kind: train
  family: dscnn
  width: 64
  depth: 2
  epochs: __TAUGHT__
  options: {__FRONT__space: {stem_stride: [__STRIDE__]}}

student:
  family: dscnn                # depthwise separable convolutions
__STAGES____FRONT_LINE__  space: {width: [8, 48], depth: [1, 3], stem_stride: [__STRIDE__]}

target: here                   # here.yaml, beside this file: the device and the budgets

recipe:                        # what a student goes through before it ships; `recipe: auto` is chosen for you
  - distill:
      loss: {kd: {temperature: 4, weight: 0.9}}   # what else there is: edgekd losses
      epochs: __EPOCHS__
      augment: {shift: 0.1, noise: {snr_db: [10, 40]}}

search: {budget: 30 min, seed: 0, accuracy: {short: {epochs: __SHORT__}}}

export: {input: float32, layout: nhwc, preprocess: fold, batch: 1}   # nhwc: (batch, time, channels)
"""
_TEXTS = """\
# The most accurate student for your texts that meets here.yaml, measured on this computer.
# Seen: __WORDS__.
# Try it:  edgekd search project.yaml
schema: edgekd.project/1

task:
__TASK__

student:
  family: transformer          # an encoder behind an embedding
  space: {depth: [1, 3], heads: [2, 4], width: [32, 96, 32], mlp_ratio: [2, 4, 2]}

target: here                   # here.yaml, beside this file: the device and the budgets

recipe:                        # what a student goes through before it ships
  - distill: {loss: ce, epochs: __EPOCHS__, clip: 1.0}

search: {budget: 30 min, seed: 0, accuracy: {short: {epochs: __SHORT__}}}

export: {batch: 1}             # a file takes the ids of tokens, int32: tokenizer.json beside it makes them
"""

_MELS = (40, 20, 10)  # the first that the sample rate has bins for

_DIGITS = """\
# A first project: the most accurate digit classifier that meets here.yaml, measured on this computer.
# Try it:  edgekd search project.yaml
schema: edgekd.project/1

task:
  kind: digits                 # 1,797 small images that come with scikit-learn

teacher:
  kind: train                  # a wider network, trained once and kept in the cache

student:
  family: resnet
  space: {width: [8, 32], depth: [1, 2]}

target: here                   # here.yaml, beside this file: the device and the budgets

recipe:                        # what a student goes through before it ships; `recipe: auto` is chosen for you
  - distill:
      loss: {kd: {temperature: 4, weight: 0.9}}   # what else there is: edgekd losses
      epochs: 30

search: {budget: 3 min, seed: 0}

export: {input: uint8, layout: nhwc, preprocess: fold, batch: 1}
"""

_OWN = """\
# Your own model, pruned and quantized until it meets here.yaml.
# Try it:  edgekd compress project.yaml
schema: edgekd.project/1

task:
__TASK__
__NORMAL__

teacher:                       # the whole model teaches its smaller selves
  kind: torch
  module: __MODEL__
  weights: __WEIGHTS__

student:
  family: pruned               # whole blocks and channels are taken out of it
  model: __MODEL__
  weights: __WEIGHTS__

target: here                   # here.yaml, beside this file: the device and the budgets

recipe:                        # what a pruned model goes through before it ships
  - distill:
      loss: {kd: {temperature: 4, weight: 0.9}}   # what else there is: edgekd losses
      epochs: 10               # at the small rate that trained weights get where none is written

search: {budget: 30 min, seed: 0}

export: {input: __INPUT__, layout: nhwc, preprocess: fold, batch: 1}
"""
# as `edgekd export` normalises
_PIXELS = """\
  # mean: [123.7, 116.3, 103.5]   # what the model was trained with, in raw units (0 to 255); found from the data
  # std: [58.4, 57.1, 57.4]       # where it is left out, which is another normalisation
  per_channel: true               # where it is found: one value a channel"""
_FLOATS = """\
  mean: 0                         # float images are taken as normalised already
  std: 1"""


class BeginAnswer(Shown):
    """Answer of `edgekd init`: data found, files written, next steps."""

    schema_: Literal["edgekd.init/1"] = Field(default="edgekd.init/1", alias="schema")
    seen: str = ""
    written: tuple[Path, ...]
    next: tuple[str, ...]

    def lines(self) -> list[str]:
        """Format data found, files, then steps."""
        seen = [f"seen:  {self.seen}"] if self.seen else []
        return [*seen, *(f"wrote {path}" for path in self.written), *(f"next:  {step}" for step in self.next)]


def begin(
    folder: str | PathLike[str],
    model: str | None = None,
    weights: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    force: bool = False,
) -> BeginAnswer:
    """Write ``project.yaml`` and ``here.yaml``. Raises UsageError where a file exists, or options don't fit.

    Data without a model is inspected, for a search project. A model is built, with weights if they exist. Raises
    ConfigurationError where either is not as expected.
    """
    folder = Path(folder)
    weights, data = (None if given is None else Path(given) for given in (weights, data))
    backends = installed_backends()
    if not backends:
        raise MissingError("no runtime is installed here", "see what is missing: edgekd doctor")
    if model is None and weights is not None:
        raise UsageError("--weights goes with --model", "for example --model my_model.py:build")
    if data is not None and (folder / data).is_dir() and folder.resolve().is_relative_to((folder / data).resolve()):
        raise UsageError(
            f"{folder.resolve()} is or lies in --data {data}, and the project's runs would be read as data",
            "go to a folder elsewhere, and give the data's path",
        )
    words = ""
    if model is None and data is not None:
        from edgekd.tasks.inspect_data import look_at

        seen = look_at(data, folder)
        project, budgets, words = _searched(seen), _searched_budgets(seen), seen.words
        steps = ["write your budgets into here.yaml", "edgekd check project.yaml", "edgekd search project.yaml"]
    elif model is None:
        project, budgets, steps = _DIGITS, _BUDGETS, ["edgekd search project.yaml"]
    else:
        try:
            reference = CodeReference.parse(model, folder)
        except ValueError as error:
            raise UsageError(f"--model: {error}") from None
        weights = _weights_of(reference, folder, weights)
        words = f"weights that `{model}` returns" if weights is None else ""
        project = _own(folder, model, weights, data)
        budgets, steps = _OWN_BUDGETS, _missing(folder, weights, data)
        steps += ["write your budgets into here.yaml", "edgekd check project.yaml", "edgekd compress project.yaml"]
    files = {
        folder / "project.yaml": project,
        folder / f"{_TARGET}.yaml": target_text("this-computer", "this computer", backends, budgets),
    }
    there = [str(path) for path in files if path.exists()]
    if there and not force:
        raise UsageError(
            f"{' and '.join(there)}: there already",
            "go to an empty folder, or replace them: --force, force=True in Python",
        )
    for path, text in files.items():
        path.write_text(text)
    return BeginAnswer(seen=words, written=tuple(files), next=tuple(steps))


def _searched(seen: Seen) -> str:
    """Project that searches students for a person's own data; epochs are counted in steps, so few images suffice."""
    from edgekd.distill.stage import Distill

    steps = Distill().steps(seen.train)
    few = seen.train < _FEW
    longer = _LONGER if few else 1
    epochs = min(400, max(10, longer * _STEPS // steps))
    small = seen.classes <= 20 and seen.train <= 10_000
    if seen.signal == "text":
        return _filled(
            _TEXTS,
            {
                "__WORDS__": seen.words,
                "__TASK__": _options(seen.task),
                "__EPOCHS__": str(min(60, epochs)),
                "__SHORT__": str(min(10, max(2, longer * _SHORT_STEPS // steps))),
            },
        )
    if seen.signal:
        front, side = _front_of(seen) if seen.signal == "audio" else ("", seen.side)
        stride = 2 if front else max(1, min(16, seen.side // 64))
        stages = 3 if side >= 4 * stride else 2 if side >= 2 * stride else 1
        return _filled(
            _SIGNALS,
            {
                "__WORDS__": seen.words,
                "__TASK__": _options(seen.task),
                "__FRONT_LINE__": f"  {front}   # in the graph: a file takes raw samples\n" if front else "",
                "__FRONT__": f"{front}, " if front else "",
                "__STAGES__": f"  stages: {stages}\n" if stages < 3 else "",
                "__STRIDE__": str(stride),
                "__TAUGHT__": str(min(60, max(10, _TEACHER_STEPS // steps))),
                "__EPOCHS__": str(epochs),
                "__SHORT__": str(min(20, max(2, longer * _SHORT_STEPS // steps))),
            },
        )
    filled = {
        "__WORDS__": seen.words,
        "__TASK__": _options(seen.task),
        "__WIDTH__": "32" if small else "48",
        "__SPACE__": "{width: [8, 32], depth: [1, 2]" if small else "{width: [8, 48], depth: [1, 3]",
        "__STRIDE__": "" if seen.side < 48 else f", stem_stride: [{2 if seen.side < 160 else 4}]",
        "__STAGES__": "" if seen.side >= 16 else f"  stages: {1 if seen.side < 8 else 2}\n",
        "__TAUGHT__": str(min(120, max(10, _TEACHER_STEPS // steps))),
        "__EPOCHS__": str(epochs),
        "__VIEWS__": _seen_often(seen.train, epochs) if few else "",
        "__SHORT__": str(min(20, max(2, longer * _SHORT_STEPS // steps))),
        "__INPUT__": "float32" if seen.floats else "uint8",
    }
    return _filled(_SEARCHED, filled)


def _front_of(seen: Seen) -> tuple[str, int]:
    """A log-mel front end as YAML, and the shorter side of what it makes; none where no filters fit the sample rate."""
    from edgekd.students.log_mel import LogMel
    from edgekd.tasks._protocol import InputSpec, SoundSpec

    rate = round(seen.side / float(seen.task["seconds"]))
    given = InputSpec(shape=(1, seen.side), sound=SoundSpec(rate=rate, samples=seen.side))
    for mels in _MELS:
        front = LogMel(mels=mels)
        try:
            side = min(front.shape(given)[1:])
        except ConfigurationError:  # too many filters: fewer may do
            continue
        return f"log_mel: {{mels: {mels}, window: {front.window:g}, hop: {front.hop:g}}}", side
    return "", seen.side


def _seen_often(images: int, epochs: int) -> str:
    """Augmentations and epochs for few images."""
    views = min(epochs, math.ceil(_ANSWERS / max(1, images)))
    return (
        f"      {f'views: {views}':<25}# of each picture; the teacher answers for each: fewer if it is slow\n"
        "      augment: {mixup: 1}      # worth most where the teacher knows more than these pictures\n"
    )


def _searched_budgets(seen: Seen) -> str:
    if not seen.classes:
        return _SEARCHED_BUDGETS + "# accuracy: {floor: 0.5}     # the lowest score worth shipping\n"
    floor = seen.commonest + (1 - seen.commonest) / 4
    comment = f"# top-1: guessing gets {seen.commonest:.2f}. Raise it to what is worth shipping"
    return f"{_SEARCHED_BUDGETS}accuracy: {{floor: {floor:.2f}}}       {comment}\n"


def _options(task: Mapping[str, object]) -> str:
    return "\n".join(f"  {name}: {_value(value)}" for name, value in task.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value) if isinstance(value, (int, float)) else _scalar(str(value))


def _filled(text: str, values: Mapping[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _own(folder: Path, model: str, weights: Path | None, data: Path | None) -> str:
    task, floats, texts = _read(folder, data)
    filled = {
        "__MODEL__": _scalar(model),
        "  weights: __WEIGHTS__\n": f"  weights: {_scalar(str(weights))}\n" if weights else "",
        "__TASK__": task,
        "__NORMAL__\n": "" if texts else f"{_FLOATS if floats else _PIXELS}\n",
        "__INPUT__": "float32" if floats or texts else "uint8",
    }
    return _filled(_OWN, filled)


def _has_floats(data: Path) -> bool:
    """Tell whether an existing .npz has float images."""
    from edgekd.tasks.npz import array_layout, array_names

    if data.suffix.lower() != ".npz" or not data.is_file() or "x_train" not in array_names(data):
        return False
    return array_layout(data, "x_train")[0].kind == "f"


def _read(folder: Path, data: Path | None) -> tuple[str, bool, bool]:
    """Task that reads a person's data, and whether that is floats, or texts; arrays may still be missing.

    Raises as `look_at`.
    """
    from edgekd.tasks.inspect_data import look_at, signals_in

    path = data or Path(_ARRAYS)
    if path.suffix.lower() == ".npz":
        layout = signals_in(folder / path) if (folder / path).is_file() else None
        arrays = _options({"kind": "image-classification", "data": str(path)}) + "    # " + _ARRAYS_OF
        return f"{arrays}\n  layout: {layout}" if layout else arrays, _has_floats(folder / path), False
    seen = look_at(path, folder)
    sized = "" if seen.signal else "    # height and width that your model takes"
    return _options(seen.task) + sized, seen.floats, seen.signal == "text"


def _weights_of(reference: CodeReference, folder: Path, weights: Path | None) -> Path | None:
    """Return the model's file of weights, which may still be missing; None where the function returns trained ones.

    Builds the model, with its weights if they exist. Raises ConfigurationError.
    """
    from edgekd.students.weights import built_module, model_digests

    if weights is not None and not (folder / weights).is_file():
        near = nearest_name(weights.name, [path.name for path in (folder / weights).parent.glob("*")])
        hint = f"did you mean `{weights.with_name(near)}`?" if near else "write the model's weights there first"
        raise ConfigurationError.one("no such file", hint, Place(str(weights), field="--weights"))
    path = weights or Path(_WEIGHTS)
    if (folder / path).is_file():
        built_module(reference, folder / path)
        return path
    return path if model_digests(reference, None)[1] is None else None


def _missing(folder: Path, weights: Path | None, data: Path | None) -> list[str]:
    needed = [("weights", weights), ("data", data or Path(_ARRAYS))]
    return [f"put your {what} at {path}" for what, path in needed if path is not None and not (folder / path).exists()]


def _scalar(text: str) -> str:
    """YAML scalar: quoted where it might be read as something else, such as a folder called 2024."""
    plain = all(c.isalnum() or c in "._/:-" for c in text) and text[0].isalpha() and ": " not in text + " "
    return text if plain and text.lower() not in _WORDS else "'" + text.replace("'", "''") + "'"


_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
