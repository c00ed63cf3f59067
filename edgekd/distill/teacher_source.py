"""Sources of teacher logits and features: `CachedTeacher` (from the cache), `LiveTeacher` (computed on each batch)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from edgekd.distill.autotune import Execution, Precision, fastest, laid_out, takes_channels_last
from edgekd.store.atomic import write_json
from edgekd.students.points import LOGITS, Point, layout_of, tapped
from edgekd.tasks._protocol import InputSpec
from edgekd.teachers._protocol import OpenTeacher, Teacher
from edgekd.teachers.cache import CachedOutputs
from edgekd.teachers.observed import Seen, observing, prepared_input

__all__ = ["CachedTeacher", "LiveTeacher", "TeacherSource", "live_teacher"]

TeacherOutputs = tuple[Tensor, Mapping[str, Tensor]]
_TRIED = 32  # samples of a probe


class TeacherSource(Protocol):
    """Teacher logits and features for one batch of a training."""

    def __call__(self, view: int, indices: Tensor, pixels: Tensor) -> TeacherOutputs:
        """Return logits (N, classes) and features by point name, on the CPU, without gradient.

        ``view`` is the number of the training's view, from 0; ``indices`` (N,) are the samples; ``pixels`` are the
        student's inputs for them, in raw units.
        """
        ...

    def finite(self) -> bool:
        """Return whether no logit is NaN or infinite, as far as that is known."""
        ...


class CachedTeacher:
    """Teacher logits and features from the cache."""

    def __init__(self, outputs: CachedOutputs) -> None:
        self._outputs = outputs

    def __call__(self, view: int, indices: Tensor, pixels: Tensor) -> TeacherOutputs:
        """Read the rows of this view from the cache's memory-mapped files, or from memory where they are held there."""
        del pixels
        rows = indices.numpy()
        features = {name: torch.from_numpy(stored[view][rows]) for name, stored in self._outputs.features.items()}
        return torch.from_numpy(self._outputs.logits[view][rows]), features

    def finite(self) -> bool:
        """Return whether all stored logits are finite; features are stored only if finite."""
        return all(np.isfinite(block).all() for block in self._outputs.logits)


class LiveTeacher:
    """Teacher logits and features computed once a batch, on exactly the pixels that the student gets.

    Made by `live_teacher`.
    """

    def __init__(self, ask: Seen) -> None:
        self._ask = ask
        self._finite = True

    def __call__(self, view: int, indices: Tensor, pixels: Tensor) -> TeacherOutputs:
        """Run the teacher once on ``pixels``."""
        del view, indices
        logits, features = self._ask(pixels.float())
        self._finite = self._finite and bool(torch.isfinite(logits).all())
        return logits, features

    def finite(self) -> bool:
        """Return whether all logits computed so far are finite."""
        return self._finite


@contextmanager
def live_teacher(
    teacher: Teacher,
    given: InputSpec,
    points: Sequence[Point] = (),
    precisions: Sequence[Precision] = ("float32",),
    device: torch.device | None = None,
    kept: Path | None = None,
) -> Iterator[LiveTeacher]:
    """Yield an `TeacherSource` that runs ``teacher`` on raw inputs.

    If the teacher's network is accessible, it runs on ``device``, in the fastest layout and precision (probed for at
    most two seconds). The choice is written to the file ``kept`` and read from there next time: another layout rounds
    differently, so a resumed training would end with other weights. Raises ConfigurationError if the network has no
    such points.
    """
    if not isinstance(teacher, OpenTeacher):
        with observing(teacher, given, points) as ask:
            yield LiveTeacher(ask)
        return
    device = device or torch.device("cpu")
    layouts = (False, True) if takes_channels_last(teacher.network(), prepared_input(teacher, given)) else (False,)
    networks = {
        last: laid_out(
            copy.deepcopy(teacher.network()), device, torch.channels_last if last else torch.contiguous_format
        )
        for last in layouts
    }

    def run_teacher(execution: Execution, batch: Tensor) -> Tensor:
        inputs = teacher.prepared(batch.to(device)).contiguous(memory_format=execution.memory_format)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, execution.precision == "bfloat16"):
            logits = teacher.rows(networks[execution.channels_last](inputs))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return logits

    tried = torch.from_numpy(given.example(_TRIED))
    options = [Execution(precision=p, channels_last=last) for p in precisions for last in layouts]
    chosen = _kept(kept, options) or fastest(options, lambda option: run_teacher(option, tried))
    if kept is not None:
        write_json(kept, chosen)
    network = networks[chosen.channels_last]
    layout = layout_of(network, prepared_input(teacher, given))
    with tapped(network, layout, [point.name for point in points]) as seen:

        def ask(batch: Tensor) -> TeacherOutputs:
            logits = run_teacher(chosen, batch)
            found = {**seen, LOGITS: logits}
            # a tensor of inference mode can't take part in a loss
            return logits.clone(), {point.name: found[point.name].float().clone() for point in points}

        yield LiveTeacher(ask)


def _kept(path: Path | None, options: Sequence[Execution]) -> Execution | None:
    """Return the execution chosen by an earlier run; None if the file is absent, invalid or not in ``options``."""
    if path is None or not path.is_file():
        return None
    try:
        found = Execution.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
    return found if found.but(speedup=1.0) in options else None
