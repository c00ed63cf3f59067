"""From a model to its files: what is chosen, refused, and converted to be timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.bundle.preprocess import ModelInput, ModelOutput, Preprocess
from edgekd.errors import ConfigurationError, EdgeKDError, Interrupted, ParityFailed, UsageError
from edgekd.events import SilentEvents
from edgekd.export._protocol import ExportOptions
from edgekd.export.converter import Converter
from edgekd.exporting.answer import ExportedFile
from edgekd.exporting.builder import FileBuilder, Made, backend_for
from edgekd.exporting.bundling import require_replaceable
from edgekd.exporting.data import task_for
from edgekd.exporting.export import ExportPlan, _Export, converted_files, export_model
from edgekd.exporting.model_argument import given_model
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch
from edgekd.store.atomic import write_json
from edgekd.store.certificate import Parity
from edgekd.students.student import new_student
from edgekd.testing.fakes.device import FakeDevice

SIZES = {Precision.INT8: 10, Precision.DYNAMIC_INT8: 12, Precision.FLOAT16: 20, Precision.FLOAT32: 40}


class PaperBuilder:
    """Files that are only named, with scores by precision."""

    def __init__(self, scores: dict[Precision, float | None]) -> None:
        self.scores, self.sizes, self.asked = scores, dict(SIZES), list[Precision]()

    def make(self, form, precision, backend):
        row = ExportedFile(format=form, precision=precision, backend=str(backend), outcome="refused", detail="no")
        made = Made(row, Candidate(family="own", arch=Arch.of({}), backend=backend), None)
        if self.scores[precision] is None:
            return made
        artefact = Artefact(path=Path("m.onnx"), format=form, sha256="0" * 64, size_bytes=self.sizes[precision])
        parity = Parity(samples=1, agree=1, largest=0.0, unit="")
        return replace(made, artefact=artefact).but(
            outcome="passed over", size_bytes=self.sizes[precision], parity=parity, detail=""
        )

    def scored(self, made, split):
        self.asked.append(made.row.precision)
        return self.scores[made.row.precision]


@pytest.fixture
def export(folder, named, images, monkeypatch):
    """An export whose files are on paper: give it scores by precision."""

    def make(scores, **plan):
        np.savez(folder / "d.npz", images=images)
        given = given_model(f"{named}:build", None)
        task = task_for(given.module(print), "build", None, folder / "d.npz", (), ())
        session = FakeDevice(latency_us=lambda *_: 1.0).open()
        made = _Export(given, task, ExportPlan(**plan), None, session, Converter(folder / "c"), folder, SilentEvents())
        made.builder = PaperBuilder({precision: scores.get(precision) for precision in Precision})
        monkeypatch.setattr(made, "_bundled", lambda one, place: one.row.but(outcome="written", bundle=place))
        return made

    return make


def outcomes(rows):
    return {row.precision: row.outcome for row in rows}


def test_the_smallest_precision_that_keeps_agreement_is_written(export, folder):
    made = export(dict.fromkeys(Precision, 0.995) | {Precision.INT8: 0.95}, max_drop=0.01)
    rows = made.format(Format.ONNX, folder / "out")
    assert outcomes(rows) == {
        Precision.INT8: "drops", Precision.DYNAMIC_INT8: "written",
        Precision.FLOAT16: "passed over", Precision.FLOAT32: "passed over",
    }  # fmt: skip
    assert made.builder.asked == [Precision.INT8, Precision.DYNAMIC_INT8]  # larger ones are not scored
    assert "5.0 points below 100.0%" in rows[0].detail


def test_the_smallest_file_is_written_and_not_the_one_that_usually_is(export, folder):
    made = export(dict.fromkeys(Precision, 1.0), max_drop=0.01)
    made.builder.sizes[Precision.DYNAMIC_INT8] = 8
    assert outcomes(made.format(Format.ONNX, folder / "out"))[Precision.DYNAMIC_INT8] == "written"
    assert made.builder.asked == [Precision.DYNAMIC_INT8]


def test_the_same_images_are_scored_once(export):
    made = export({Precision.INT8: 0.95})
    one = made.builder.make(Format.ONNX, Precision.INT8, backend_for(Format.ONNX))
    assert made.score(one, "validation") == made.score(one, "test") == 0.95  # these images have one part that scores
    assert made.builder.asked == [Precision.INT8]


@pytest.mark.parametrize(
    ("error", "outcome"), [(ConfigurationError.one("no"), "refused"), (ParityFailed("no"), "differs")]
)
def test_a_file_that_can_not_be_bundled_is_a_row_beside_the_others(export, folder, monkeypatch, error, outcome):
    made = export(dict.fromkeys(Precision, 1.0), precisions=(Precision.FLOAT32, Precision.INT8))
    bundled = made._bundled

    def failing(one, place):
        if one.row.precision is Precision.INT8:
            raise error
        return bundled(one, place)

    monkeypatch.setattr(made, "_bundled", failing)
    rows = made.format(Format.ONNX, folder / "out")
    assert outcomes(rows) == {Precision.INT8: outcome, Precision.FLOAT32: "written"}
    assert rows[0].detail == "no"


def test_a_file_that_can_not_be_scored_is_a_row(export, folder, monkeypatch):
    made = export(dict.fromkeys(Precision, 1.0), max_drop=0.01)
    scored = made.builder.scored

    def failing(one, split):
        if one.row.precision is Precision.INT8:
            raise ConfigurationError.one("no")
        return scored(one, split)

    monkeypatch.setattr(made.builder, "scored", failing)
    found = outcomes(made.format(Format.ONNX, folder / "out"))
    assert (found[Precision.INT8], found[Precision.DYNAMIC_INT8]) == ("refused", "written")


def test_the_device_of_a_target_in_another_folder_is_the_one_beside_it(folder, named, images):
    """Its description was read there, and its connection looked for in the working folder alone."""
    (folder / "boards" / "devices").mkdir(parents=True)
    np.savez(folder / "d.npz", images=images)
    (folder / "boards" / "quick.yaml").write_text(
        "schema: edgekd.target/1\ndevice: near\nbackends: [onnxruntime/cpu]\nbudgets: {latency: {p95: 1 s}}\n"
    )
    (folder / "boards" / "devices" / "near.yaml").write_text(
        "schema: edgekd.device/1\ntitle: Near\nconnection: {kind: local, python: ./no-such-python}\n"
    )
    plan = ExportPlan(data=Path("d.npz"), target="boards/quick.yaml")
    with pytest.raises(EdgeKDError, match="no-such-python"):
        export_model(f"{named}:build", None, plan, folder / "out", SilentEvents())


def test_an_export_that_is_stopped_asks_for_the_same_command_again(export, folder, monkeypatch):
    made = export({})
    monkeypatch.setattr(SilentEvents, "stop", lambda _: True)
    with pytest.raises(Interrupted, match="give the same command again"):
        made.format(Format.ONNX, folder / "out")


@pytest.mark.parametrize("max_drop", [None, 0.01])
def test_a_model_near_chance_is_noted_and_keeps_no_drop(export, max_drop):
    made = export({}, max_drop=max_drop)
    made.task = replace(made.task, kind="top1")
    made._references["validation"] = 0.26
    if max_drop is None:
        assert made.doubts()[0].startswith("the model is hardly better than chance: 26.0%, and guessing scores 85.0%")
    else:
        with pytest.raises(ConfigurationError, match="--max-drop would keep any file"):
            made.doubts()
    made._references["validation"] = 0.95
    assert made.doubts() == ()


@pytest.mark.parametrize("share", [-0.1, 1.0, 5.0])
def test_a_drop_of_everything_is_refused(tmp_path, share):
    plan = ExportPlan(data=tmp_path, max_drop=share)
    with pytest.raises(UsageError, match=r"0\.01 is one point"):
        export_model("m.py:f", None, plan, tmp_path / "out", SilentEvents())


def test_what_a_model_can_not_have_is_passed_on_to_the_next(export, folder):
    rows = export({Precision.FLOAT16: 1.0}, max_drop=0.01).format(Format.ONNX, folder / "out")
    assert outcomes(rows) == {
        Precision.INT8: "refused", Precision.DYNAMIC_INT8: "refused", Precision.FLOAT16: "written",
        Precision.FLOAT32: "refused",
    }  # fmt: skip


def test_nothing_is_written_where_nothing_keeps_it(export, folder):
    made = export({Precision.INT8: 0.5}, max_drop=0.01, precisions=(Precision.INT8,))
    assert outcomes(made.format(Format.ONNX, folder / "out")) == {Precision.INT8: "drops"}


def test_every_precision_asked_for_has_a_folder(export, folder):
    made = export({Precision.INT8: 0.5, Precision.FLOAT32: 1.0}, precisions=(Precision.FLOAT32, Precision.INT8))
    rows = made.format(Format.ONNX, folder / "out")
    assert {row.bundle for row in rows} == {folder / "out" / "int8", folder / "out" / "float32"}


def exported(folder: Path, *models: str) -> None:
    """What an export leaves in a folder, of names and schemas alone."""
    folder.mkdir(parents=True)
    for name in (*models, "README.md", "samples.npz", "example.py"):
        (folder / name).touch()
    preprocess = Preprocess(
        input=ModelInput(dtype="uint8", layout="nhwc", shape=(1, 8, 8, 3), raw_range=(0, 255), steps=()),
        output=ModelOutput(dtype="float32", classes=4),
        export=ExportOptions(),
    )
    write_json(folder / "preprocess.json", preprocess)


def test_an_earlier_export_is_replaced_and_nothing_else_is(tmp_path):
    require_replaceable(tmp_path / "new")
    exported(tmp_path / "int8", "model.xml", "model.bin")
    require_replaceable(tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="holds more than a bundle"):
        require_replaceable(tmp_path)


def test_a_model_in_a_folder_of_a_formats_name_is_never_replaced(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    with pytest.raises(UsageError, match=r"holds more than a bundle \(model.onnx\)"):
        require_replaceable(tmp_path / "onnx")
    (tmp_path / "onnx" / "preprocess.json").write_text('{"schema": "another/1"}')
    for name in ("samples.npz", "example.py"):
        (tmp_path / "onnx" / name).touch()
    with pytest.raises(UsageError, match="holds more than a bundle"):
        require_replaceable(tmp_path / "onnx")


def test_what_an_export_is_made_from_is_never_replaced(tmp_path):
    exported(tmp_path / "onnx", "model.onnx")
    require_replaceable(tmp_path / "onnx")
    with pytest.raises(UsageError, match="which is replaced whole"):
        require_replaceable(tmp_path / "onnx", [tmp_path / "onnx" / "model.onnx"])


def test_two_backends_of_one_runtime_have_folders_of_their_own(folder, named, monkeypatch):
    class Paper:
        def convert(self, student, *_):
            folders.append(student)
            return SimpleNamespace(artefact=None, detail="no", outcome=None)

    folders: list[Path] = []
    family = given_model(f"{named}:build", None).family
    task = task_for(family.module(), "build", (3, 8, 8), None, (), ())
    builder = FileBuilder(family, task, Paper(), folder)
    monkeypatch.setattr(
        FileBuilder, "_calibrated", lambda *_: new_student(family, family.original(task.spec), task.spec, 0)
    )
    for backend in ("litert/xnnpack", "litert/builtin"):
        builder.converted(Format.TFLITE, Precision.FLOAT32, Backend.model_validate(backend))
    assert len(set(folders)) == 2


def test_backends_are_native_to_their_format():
    assert [str(backend_for(form)) for form in Format] == ["onnxruntime/cpu", "litert/xnnpack", "openvino/cpu"]


@pytest.mark.slow
@pytest.mark.runtime
def test_a_model_is_converted_to_be_timed(folder, named):
    (folder / "other.tflite").touch()
    files = converted_files(
        [f"{named}:build", "other.tflite"], None, ((3, 8, 8),), [Format.ONNX], folder / "files", SilentEvents()
    )
    assert files == [folder / "files" / "build.onnx", Path("other.tflite")]
    assert files[0].stat().st_size > 0
    with pytest.raises(ConfigurationError, match="takes 2 inputs"):
        converted_files([f"{named}:two"], None, ((3, 8, 8),), [Format.ONNX], folder / "files", SilentEvents())


def test_files_of_an_earlier_export_with_other_options_do_not_stay(export, folder):
    exported(folder / "out" / "float16", "model.onnx")
    (folder / "out" / "model.onnx").touch()
    made = export({Precision.INT8: 0.5, Precision.FLOAT32: 1.0}, precisions=(Precision.FLOAT32, Precision.INT8))
    made._bundled = lambda one, place: place.mkdir() or one.row.but(outcome="written", bundle=place)
    made.format(Format.ONNX, folder / "out")
    assert {path.name for path in (folder / "out").iterdir()} == {"float32", "int8"}


def test_an_export_into_its_own_data_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UsageError, match="would be read as data"):
        require_replaceable(tmp_path / "pictures" / "out" / "onnx", [tmp_path / "pictures"])
