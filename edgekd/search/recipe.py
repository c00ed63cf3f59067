"""Recipe variants for a search: with a precision at the end, and shortened for a quick estimate.

The precision of a deployment is the recipe's last ``quantize`` stage. A recipe that has one of its own keeps its
options and limits the deployments to its precision.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.artefacts import Backend
from edgekd.compress.quantization.stage import Quantize
from edgekd.export.integer import INSPECTABLE
from edgekd.ir.backends import formats_of
from edgekd.ir.numerics import Precision
from edgekd.ir.support import COMPARED, precisions_of
from edgekd.records import Record
from edgekd.stages import CutsEpochs, DrawsImages, Quantizes, Stage, Trains
from edgekd.store.records import Deployment, ProposalsRecord
from edgekd.targets.target import Target

__all__ = [
    "calibrating",
    "cut_to_time",
    "deployments_of",
    "epochs_of",
    "images_of",
    "kept_float",
    "quantized_to",
    "shortened",
    "shortened_to",
    "with_precision",
]


def deployments_of(target: Target, recipe: Sequence[Stage]) -> tuple[Deployment, ...]:
    """Every backend of the target at every precision that target, runtime and recipe allow; float32 first."""
    fixed = quantized_to(recipe)
    return tuple(
        Deployment(backend=backend, precision=precision)
        for backend in target.backends
        for precision in ([fixed] if fixed is not None else COMPARED)
        if precision in precisions_of(backend) and (not target.fully_integer or _shows_integers(backend, precision))
    )


def _shows_integers(backend: Backend, precision: Precision) -> bool:
    """Return whether the file's format shows that it computes in integers alone."""
    return precision is Precision.INT8 and formats_of(backend)[0] in INSPECTABLE


def with_precision(recipe: Sequence[Stage], precision: Precision) -> tuple[Stage, ...]:
    """Return the recipe with ``precision`` as its last stage."""
    kept = [stage for stage in recipe if not isinstance(stage, Quantizes)]
    if precision is Precision.FLOAT32:
        return tuple(kept)
    own = [stage for stage in recipe if isinstance(stage, Quantizes) and stage.quantizes_to is precision]
    return (*kept, own[-1] if own else Quantize(precision=precision))


def quantized_to(recipe: Sequence[Stage]) -> Precision | None:
    """Precision that the recipe fixes; None where it has no quantize stage."""
    fixed = [stage.quantizes_to for stage in recipe if isinstance(stage, Quantizes)]
    return fixed[-1] if fixed else None


def calibrating(recipe: Sequence[Stage]) -> list[Stage]:
    """Quantize stages without training: the recipe of a student that stays untouched."""
    return [stage.calibrating() for stage in recipe if isinstance(stage, Quantizes)]


def kept_float(recipe: Sequence[Stage]) -> tuple[str, ...]:
    """Patterns of the operators that the recipe's static precision leaves in float."""
    own = [stage for stage in recipe if isinstance(stage, Quantize) and stage.precision.is_static]
    return own[-1].keep_float if own else ()


def shortened(recipe: Sequence[Stage], epochs: int) -> tuple[Stage, ...]:
    """Return the recipe with every stage limited to ``epochs`` epochs."""
    return tuple(_shortened(stage, epochs) for stage in recipe)


def shortened_to(recipe: Sequence[Stage], share: float) -> tuple[Stage, ...]:
    """Return the recipe with every stage cut to this share of its epochs, at least one."""
    return tuple(
        stage.cut_to(share)
        if isinstance(stage, CutsEpochs)
        else _shortened(stage, max(1, round(share * _epochs(stage))))
        for stage in recipe
    )


def cut_to_time(recipe: Sequence[Stage], ended: ProposalsRecord | None) -> tuple[Stage, ...]:
    """Return the recipe cut to the time left when a search ended proposing; uncut where there was no search."""
    return tuple(recipe) if ended is None or ended.share == 1.0 else shortened_to(recipe, ended.share)


def epochs_of(recipe: Sequence[Stage]) -> int:
    """Epochs of all stages together."""
    return sum(_epochs(stage) for stage in recipe)


def images_of(recipe: Sequence[Stage], samples: int) -> int:
    """Images that the recipe passes through training, with ``samples`` in the training split."""
    return sum(
        stage.images(samples) if isinstance(stage, DrawsImages) else samples * _epochs(stage) for stage in recipe
    )


def _shortened(stage: Stage, epochs: int) -> Stage:
    if isinstance(stage, Trains):
        return stage.shortened(epochs)
    own = _epochs(stage)
    return stage.but(epochs=min(epochs, own)) if own and isinstance(stage, Record) else stage


def _epochs(stage: Stage) -> int:
    if isinstance(stage, Trains):
        return stage.passes
    # a stage without this protocol may still have the usual option ``epochs``
    found = getattr(stage, "epochs", 0) if isinstance(stage, Record) else 0
    return found if isinstance(found, int) else 0
