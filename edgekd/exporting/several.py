"""Models of several inputs: converted as they are in float32, and compared with PyTorch on random inputs.

Calibration, scores, layouts, normalisation and certificates are of one input: see `edgekd.exporting.export`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgekd.agent.faults import is_shortage, is_want_of_memory
from edgekd.artefacts import Artefact, Format
from edgekd.bundle.samples import SAMPLES
from edgekd.bundle.write import copy_model
from edgekd.devices._protocol import DeviceSession, Job, Outcome
from edgekd.devices.catalogue import open_device
from edgekd.devices.outputs import open_output
from edgekd.errors import ConfigurationError, first_line
from edgekd.events import Events, stop_if_asked
from edgekd.export.converter import Converter
from edgekd.export.parity import compared_floats
from edgekd.export.several import answers_to, random_inputs
from edgekd.exporting.answer import ExportedFile, ModelExportAnswer
from edgekd.exporting.builder import backend_for
from edgekd.exporting.inputs import INPUTS, OneInput, SeveralInputs
from edgekd.exporting.model_argument import GivenModel
from edgekd.ir.numerics import Precision
from edgekd.store.atomic import draft_of, replace_folder, write_json
from edgekd.store.certificate import Parity
from edgekd.students.own import inputs_of
from edgekd.temporary import prefix

__all__ = ["export_several", "require_taken", "several_file"]

_COUNT = 16  # samples

Shapes = Sequence[tuple[int, ...]]


def require_taken(module: nn.Module, called: str, shapes: Shapes) -> list[NDArray[np.float32]]:
    """Return random inputs. Raises ConfigurationError if the model takes others, or answers no finite numbers."""
    names = inputs_of(module)
    if names and not len(names) <= len(shapes) <= len(inputs_of(module, optional=True)):
        raise ConfigurationError.one(
            f"`{called}` takes {len(names)} inputs ({', '.join(names)}), and --input has {len(shapes)} shapes",
            "give one an input, in the order of forward, as 3x224x224,4",
        )
    inputs = random_inputs(shapes, 0, _COUNT)
    shown = ", ".join(f"(1, {', '.join(map(str, shape))})" for shape in shapes)
    try:
        found = answers_to(module, [values[:1] for values in inputs])
    except (Exception, SystemExit) as error:  # a person's code may raise anything
        if is_want_of_memory(error) or is_shortage(error):
            raise
        reason = first_line(error)
        raise ConfigurationError.one(
            f"`{called}` can't take float32 inputs {shown}: {reason}", "give the shapes it was trained with to --input"
        ) from error
    if found.ndim < 2 or not np.isfinite(found).all():
        raise ConfigurationError.one(
            f"`{called}` answers {found.shape} to {shown}, or no finite numbers", "let it answer logits (N, classes)"
        )
    return inputs


def several_file(
    given: GivenModel, shapes: Shapes, form: Format, converter: Converter, path: Path
) -> tuple[Artefact | None, str]:
    """Return a model's float32 file, or None and the reason."""
    result = converter.convert_several(given.family.model_dump(mode="json"), shapes, form, path)
    return result.artefact, result.detail or result.outcome.value


def export_several(
    given: GivenModel, shapes: Shapes, formats: Sequence[Format], output: Path, events: Events
) -> ModelExportAnswer:
    """Convert, compare, and write a folder a format below ``output``: the file, `INPUTS`, samples with their answers.

    Raises ConfigurationError on a model that doesn't take these shapes, MissingError, DeviceBusy, Interrupted.
    """
    module = given.module(events.line)
    inputs = require_taken(module, given.called, shapes)
    expected = answers_to(module, inputs)
    names = inputs_of(module, optional=True) or [f"input{number}" for number in range(len(shapes))]
    stated = SeveralInputs(
        inputs=tuple(OneInput(name=name, shape=(1, *shape)) for name, shape in zip(names, shapes, strict=False))
    )
    rows = []
    session = open_device("this-computer", notice=events.notice).open()
    try:
        with (
            tempfile.TemporaryDirectory(prefix=prefix()) as scratch,
            Converter(Path(scratch) / "convert") as converter,
        ):
            for done, form in enumerate(formats):
                stop_if_asked(events, "stopped; files that were written are kept", "give the same command again")
                events.progress("converting", done, len(formats), form.value)
                path = Path(scratch) / form.value / f"model{form.suffix}"
                artefact, detail = several_file(given, shapes, form, converter, path)
                row = ExportedFile(
                    format=form, precision=Precision.FLOAT32, backend=str(backend_for(form)), outcome="refused"
                )
                if artefact is None:
                    rows.append(row.but(detail=detail))
                    continue
                row = _compared(row, artefact, inputs, expected, session, path.parent)
                if row.outcome == "written":
                    row = row.but(bundle=output / form.value)
                    arrays = dict(zip(names, inputs, strict=True))
                    _write(artefact, stated, arrays | {"answers": expected}, output / form.value)
                rows.append(row)
            events.progress("converting", len(formats), len(formats), "")
    finally:
        session.close()
    return ModelExportAnswer(
        model=given.family.called,
        files=tuple(rows),
        notes=("several inputs: float32, compared on random inputs; no calibration, scores or certificate",),
    )


def _compared(
    row: ExportedFile,
    artefact: Artefact,
    inputs: Sequence[NDArray[np.float32]],
    expected: NDArray[np.float32],
    session: DeviceSession,
    scratch: Path,
) -> ExportedFile:
    """The row with its parity, and ``written`` as its outcome if it holds."""
    row, paths = row.but(size_bytes=artefact.size_bytes), []
    for number, values in enumerate(inputs):
        paths.append(scratch / f"input{number}.npy")
        np.save(paths[-1], values, allow_pickle=False)
    result = session.run(Job(artefact=artefact, backend=backend_for(row.format)), paths)
    if result.outcome is not Outcome.OK:
        return row.but(detail=f"{result.outcome.value}: {result.detail}")
    found = open_output(result.outputs[0], len(expected)).reshape(len(expected), -1)
    wanted = expected.reshape(len(expected), -1)
    if found.shape != wanted.shape:
        return row.but(outcome="differs", detail=f"from the model: {found.shape[1]} values, {wanted.shape[1]} expected")
    report = compared_floats(wanted, np.asarray(found, np.float32))
    parity = Parity(samples=report.samples, agree=report.agree, largest=report.largest, unit=report.unit)
    if not report.holds:
        return row.but(outcome="differs", detail=f"from the model: {report.detail}", parity=parity)
    return row.but(outcome="written", parity=parity)


def _write(artefact: Artefact, stated: SeveralInputs, arrays: dict[str, NDArray[np.float32]], folder: Path) -> None:
    draft = draft_of(folder.absolute())
    draft.mkdir(parents=True)
    try:
        copy_model(artefact, draft)
        write_json(draft / INPUTS, stated)
        np.savez(draft / SAMPLES, **arrays)  # type: ignore[arg-type]  # names of inputs are no options
        replace_folder(draft, folder.absolute())
    finally:
        shutil.rmtree(draft, ignore_errors=True)
