"""A new project: commented files that run as they are, for digits or for a person's own model."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgekd.errors import ConfigurationError, MissingError, Place, UsageError, nearest_name
from edgekd.records import Shown
from edgekd.references import CodeReference
from edgekd.targets.writing import installed_backends, target_text

__all__ = ["BeginAnswer", "begin"]

_TARGET, _WEIGHTS = "here", "model.safetensors"
_BUDGETS = """\
budgets:                       # every one is optional; report: true makes one informative
  latency: {p95: 500 us}
  size: {file: 64 KiB}
"""
_OWN_BUDGETS = """\
budgets:                       # yours: `edgekd compress` says first what the model itself takes
  latency: {p95: 5 ms}
  size: {file: 4 MiB}
"""

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
  kind: image-classification
  data: __DATA__    # arrays x_train, y_train, x_test, y_test
  # mean: [123.7, 116.3, 103.5]   # what the model was trained with, in raw units (0 to 255); found from the data
  # std: [58.4, 57.1, 57.4]       # where it is left out, which is another normalisation

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
      epochs: 10
      learning_rate: 0.01      # weights that are trained already lose at a larger one
      warmup_epochs: 0

search: {budget: 30 min, seed: 0}

export: {input: uint8, layout: nhwc, preprocess: fold, batch: 1}
"""


class BeginAnswer(Shown):
    """What was written, and what to do next."""

    schema_: Literal["edgekd.init/1"] = Field(default="edgekd.init/1", alias="schema")
    written: tuple[Path, ...]
    next: tuple[str, ...]

    def lines(self) -> list[str]:
        """Files, then steps."""
        return [*(f"wrote {path}" for path in self.written), *(f"next:  {step}" for step in self.next)]


def begin(
    folder: str | PathLike[str],
    model: str | None = None,
    weights: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    force: bool = False,
) -> BeginAnswer:
    """Write ``project.yaml`` and ``here.yaml``. Raises UsageError where a file is there, or options don't fit.

    A model is built once, with the weights that are there. Raises ConfigurationError where that fails.
    """
    folder = Path(folder)
    weights, data = (None if given is None else Path(given) for given in (weights, data))
    backends = installed_backends()
    if not backends:
        raise MissingError("no runtime is installed here", "see what is missing: edgekd doctor")
    if model is None:
        if weights is not None or data is not None:
            raise UsageError("--weights and --data go with --model", "for example --model my_model.py:build")
        project, budgets, steps = _DIGITS, _BUDGETS, ["edgekd search project.yaml"]
    else:
        project = _own(folder, model, weights, data)
        budgets, steps = _OWN_BUDGETS, _missing(folder, weights, data)
        steps += ["write your budgets into here.yaml", "edgekd compress project.yaml"]
    files = {
        folder / "project.yaml": project,
        folder / f"{_TARGET}.yaml": target_text("this-computer", "this computer", backends, budgets),
    }
    there = [str(path) for path in files if path.exists()]
    if there and not force:
        raise UsageError(f"{' and '.join(there)}: there already", "go to an empty folder, or --force to replace")
    for path, text in files.items():
        path.write_text(text)
    return BeginAnswer(written=tuple(files), next=tuple(steps))


def _own(folder: Path, model: str, weights: Path | None, data: Path | None) -> str:
    try:
        reference = CodeReference.parse(model, folder)
    except ValueError as error:
        raise UsageError(f"--model: {error}") from None
    _check(reference, folder, weights)
    filled = {"__MODEL__": model, "__WEIGHTS__": weights or _WEIGHTS, "__DATA__": data or "images.npz"}
    text = _OWN
    for mark, value in filled.items():
        text = text.replace(mark, _scalar(str(value)))
    return text


def _check(reference: CodeReference, folder: Path, weights: Path | None) -> None:
    """Build the model, with its weights where they are. Raises ConfigurationError."""
    from edgekd.teachers.weights import built_module

    if weights is not None and not (folder / weights).is_file():
        near = nearest_name(weights.name, [path.name for path in (folder / weights).parent.glob("*")])
        hint = f"did you mean `{weights.with_name(near)}`?" if near else "write the model's weights there first"
        raise ConfigurationError.one("no such file", hint, Place(str(weights), field="--weights"))
    path = folder / (weights or _WEIGHTS)
    built_module(reference, path if path.is_file() else None)


def _missing(folder: Path, weights: Path | None, data: Path | None) -> list[str]:
    steps = []
    for path, what in ((weights or Path(_WEIGHTS), "weights"), (data or Path("images.npz"), "data")):
        if not (folder / path).is_file():
            steps.append(f"put your {what} at {path}")
    return steps


def _scalar(text: str) -> str:
    """A YAML scalar: quoted where it might be read as something else."""
    plain = all(c.isalnum() or c in "._/:-" for c in text) and not text.startswith(("-", ":")) and ": " not in text
    return text if plain else "'" + text.replace("'", "''") + "'"
