"""Conversions in the worker: what comes back, and the four ways in which nothing does."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.code_references import importable
from edgekd.errors import MissingError
from edgekd.export import converter as converter_module
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.export.converter import Converter, _End
from edgekd.export.metadata import read_facts
from edgekd.ir.backends import formats_of
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.student import new_student, save_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

pytestmark = pytest.mark.runtime

ORT = Backend.model_validate("onnxruntime/cpu")

TROUBLE = """
import os, signal, time
import torch
from typing import ClassVar
from torch import nn
from edgekd.records import Record

LEFT = []

class Net(nn.Module):
    def __init__(self, does):
        super().__init__()
        self.does, self.head = does, nn.Linear(12, 2)

    def forward(self, x):
        if self.does == "short":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if self.does == "full":
            raise OSError(28, "No space left on device", "/tmp/x")
        if self.does == "hang":
            time.sleep(600)
        while self.does == "spin":
            pass
        if self.does == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.does == "starve":  # as the kernel would: it counts first
            with open(os.environ["TROUBLE_COUNTERS"], "w") as counters:
                counters.write(f"oom_kill {time.time_ns()}\\n")
        if self.does in ("starve", "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does in ("mutter", "abort"):
            os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
        if self.does == "abort":
            os.kill(os.getpid(), signal.SIGABRT)
        if self.does == "grow":
            kept = []
            while True:
                kept.append(bytearray(b"x" * 20_000_000))
                time.sleep(0.005)
        if self.does == "leak":
            LEFT.append(bytearray(b"x") * 700_000_000)
            time.sleep(0.5)
        if self.does == "branch" and x.sum() > 0:
            x = -x
        return self.head(x.flatten(1))

class Trouble(Record):
    name: ClassVar[str] = "trouble"
    inherits: ClassVar[bool] = False
    does: str

    def space(self, spec):
        raise NotImplementedError

    def build(self, arch, spec):
        if self.does == "large" and "EDGEKD_TROUBLE_HOST" not in os.environ:
            from edgekd.errors import ConfigurationError
            try:
                raise MemoryError
            except MemoryError as error:
                raise ConfigurationError.one("`build()` failed: MemoryError: ", "correct it") from error
        return Net(self.does).eval()
"""


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A family installed like a stranger's package, in a folder the worker's Python sees."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "trouble_family.py").write_text(TROUBLE)
    info = folder / "trouble-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trouble\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekd.families]\ntrouble = trouble_family:Trouble\n")
    with pytest.MonkeyPatch.context() as patch, importable(folder):
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("TROUBLE_COUNTERS", str(folder / "vmstat"))
        import trouble_family  # type: ignore[import-not-found]  # written above

        yield trouble_family
        del sys.modules["trouble_family"]


@pytest.fixture
def counters(trouble: ModuleType) -> Path:
    """Where this test's kernel counts."""
    path = Path(os.environ["TROUBLE_COUNTERS"])
    path.write_text("pgfault 12\n")
    return path


@pytest.fixture(scope="module")
def watched(trouble: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converter]:
    scratch, counters = tmp_path_factory.mktemp("watched"), Path(os.environ["TROUBLE_COUNTERS"])
    with Converter(scratch, deadline_s=300.0, memory_limit_bytes=2_000_000_000, kernel_counters=counters) as converter:
        yield converter


def _saved(trouble: ModuleType, does: str, folder: Path, seed: int = 0) -> Path:
    spec = TaskSpec(name="t", input=InputSpec(shape=(3, 2, 2)), head=HeadSpec(classes=2), data="0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_TROUBLE_HOST", "1")  # what the worker can't build is built here
        save_student(new_student(trouble.Trouble(does=does), Arch.of({}), spec, seed=seed), folder / does)
    return folder / does


def _convert(converter: Converter, student: Path, path: Path) -> ConversionResult:
    return converter.convert(student, Format.ONNX, ExportOptions(), ORT, None, path)


def test_every_end_has_its_outcome_and_the_next_conversion_works(
    trouble: ModuleType, watched: Converter, counters: Path, tmp_path: Path
) -> None:
    """Each end is met by the worker that was started after the one before it."""
    for does, outcome, says in (
        ("crash", ConversionOutcome.CRASHED, "SIGSEGV"),
        ("grow", ConversionOutcome.OUT_OF_MEMORY, "more than its limit of 2000000000 B"),
        ("abort", ConversionOutcome.OUT_OF_MEMORY, "bad_alloc"),
        ("large", ConversionOutcome.OUT_OF_MEMORY, "`build()` failed: MemoryError"),
        ("short", ConversionOutcome.OUT_OF_MEMORY, "into a graph: DefaultCPUAllocator: can't allocate"),
        ("branch", ConversionOutcome.REFUSED, "the trouble module can't be turned into a graph"),
        ("fine", ConversionOutcome.OK, ""),
    ):
        folder = tmp_path / does
        result = _convert(watched, _saved(trouble, does, tmp_path), folder / "out" / "model.onnx")
        assert result.outcome is outcome, (does, result.detail)
        assert says in result.detail
        left = [file.name for file in (folder / "out").iterdir()]
        assert left == (["model.onnx"] if does == "fine" else [])
        assert result.artefact == (Artefact.of(folder / "out" / "model.onnx") if does == "fine" else None)


def test_a_file_of_the_folder_here_is_no_part_of_the_converter(
    trouble: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People call a script `onnx.py` or `queue.py`."""
    for name in ("onnx", "queue", "onnxscript"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    student = _saved(trouble, "fine", tmp_path)
    with Converter(tmp_path / "scratch") as converter:
        result = _convert(converter, student, tmp_path / "out" / "model.onnx")
    assert result.outcome is ConversionOutcome.OK, result.detail


def test_a_worker_begun_early_is_the_one_that_converts(trouble: ModuleType, tmp_path: Path) -> None:
    student = _saved(trouble, "fine", tmp_path)
    with Converter(tmp_path / "scratch") as converter:
        converter.begin(Format.ONNX)
        begun = converter._process
        assert begun is not None
        assert _convert(converter, student, tmp_path / "out" / "model.onnx").outcome is ConversionOutcome.OK
        assert converter._process is begun
        begun.kill()  # while idle
        converter.begin(Format.ONNX)
        assert _convert(converter, student, tmp_path / "out" / "again.onnx").outcome is ConversionOutcome.OK


def test_a_fault_of_the_machine_is_no_outcome(
    trouble: ModuleType, watched: Converter, counters: Path, tmp_path: Path
) -> None:
    for does, says in (
        ("starve", "the worker died: SIGKILL by the kernel, which had no memory left"),
        ("killed", "the worker died: SIGKILL"),
        ("full", "No space left on device: '/tmp/x'"),
    ):
        counters.write_text("pgfault 12\n")
        with pytest.raises(MissingError, match=re.escape(says)):
            _convert(watched, _saved(trouble, does, tmp_path), tmp_path / "out" / "model.onnx")
        assert list((tmp_path / "out").iterdir()) == []
    fine = _convert(watched, _saved(trouble, "fine", tmp_path), tmp_path / "out" / "model.onnx")
    assert fine.outcome is ConversionOutcome.OK, fine.detail


def test_a_file_that_can_not_be_written_is_no_outcome(trouble: ModuleType, watched: Converter, tmp_path: Path) -> None:
    (tmp_path / f".model.{os.getpid()}.onnx").symlink_to("/dev/full")
    with pytest.raises(MissingError, match="No space left on device"):
        _convert(watched, _saved(trouble, "fine", tmp_path), tmp_path / "model.onnx")


@pytest.mark.parametrize(("others_mb", "fault"), [(3400, True), (200, False)])
def test_want_of_memory_is_the_machines_fault_where_other_work_has_it(
    trouble: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others_mb: int, fault: bool
) -> None:
    """A machine of 4 GB whose worker has taken what others left. A conversion may take more than that."""
    total = 4_000_000_000
    taken = SimpleNamespace(total=total, available=0)
    monkeypatch.setattr(converter_module.psutil, "virtual_memory", lambda: taken)
    monkeypatch.setattr(converter_module, "_resident_bytes", lambda _process: total - others_mb * 1_000_000)
    with Converter(tmp_path / "scratch", memory_limit_bytes=2**60) as converter:
        student = _saved(trouble, "abort", tmp_path)
        if fault:
            with pytest.raises(MissingError, match="bad_alloc"):
                _convert(converter, student, tmp_path / "model.onnx")
        else:
            assert _convert(converter, student, tmp_path / "model.onnx").outcome is ConversionOutcome.OUT_OF_MEMORY


def test_a_conversion_that_hangs_is_ended_at_the_deadline(
    trouble: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Converter(tmp_path / "scratch", deadline_s=1.0, memory_limit_bytes=2_000_000_000) as impatient:
        for does, patience, says in (("hang", 4, "no answer within"), ("spin", 100, "within 1 s of a processor")):
            monkeypatch.setattr(converter_module, "_PATIENCE", patience)
            result = _convert(impatient, _saved(trouble, does, tmp_path), tmp_path / "model.onnx")
            assert result.outcome is ConversionOutcome.HUNG
            assert says in result.detail
            assert result.seconds >= 1.0
            assert result.artefact is None
        impatient._deadline_s = 300.0
        fine = _convert(impatient, _saved(trouble, "fine", tmp_path), tmp_path / "model.onnx")
        assert fine.outcome is ConversionOutcome.OK, fine.detail


def test_what_earlier_conversions_left_in_memory_is_not_a_later_ones_need(
    trouble: ModuleType, watched: Converter, counters: Path, tmp_path: Path
) -> None:
    for seed in range(3):  # 700 MB each, of a worker that may take 2,000; one student twice would be traced once
        result = _convert(watched, _saved(trouble, "leak", tmp_path / str(seed), seed), tmp_path / "model.onnx")
        assert result.outcome is ConversionOutcome.OK, result.detail


def test_what_was_said_of_an_earlier_conversion_is_not_a_later_ones_end(
    trouble: ModuleType, watched: Converter, counters: Path, tmp_path: Path
) -> None:
    said = _convert(watched, _saved(trouble, "mutter", tmp_path), tmp_path / "model.onnx")
    assert said.outcome is ConversionOutcome.OK, said.detail
    died = _convert(watched, _saved(trouble, "crash", tmp_path), tmp_path / "model.onnx")
    assert "bad_alloc" in died.detail
    assert died.outcome is ConversionOutcome.CRASHED


@pytest.mark.parametrize(
    ("file_format", "backend", "name"),
    [
        (Format.ONNX, "onnxruntime/cpu", "model.onnx"),
        (Format.TFLITE, "litert/xnnpack", "model.tflite"),
        (Format.OPENVINO, "openvino/cpu", "model.xml"),
    ],
)
def test_files_come_back_with_their_facts(
    converter: Converter,
    calibrated: dict[Precision, Student],
    tmp_path: Path,
    file_format: Format,
    backend: str,
    name: str,
) -> None:
    student = calibrated[Precision.INT8]
    named = student.task.but(head=HeadSpec(classes=10, labels=tuple("abcdefghij")))
    save_student(student.but(task=named), tmp_path / "student")
    facts = {"target": "pi5-30fps", "accuracy": "97.5 % ≥ 97 %"}
    result = converter.convert(
        tmp_path / "student",
        file_format,
        ExportOptions(input="uint8", layout="nhwc"),
        Backend.model_validate(backend),
        None,
        tmp_path / "out" / name,
        facts,
    )
    assert result.outcome is ConversionOutcome.OK, result.detail
    assert result.artefact is not None
    assert result.artefact.format is file_format
    assert read_facts(result.artefact.path) == facts
    assert result.artefact == Artefact.of(result.artefact.path)
    if file_format is Format.TFLITE:
        with zipfile.ZipFile(result.artefact.path) as attached:
            assert attached.read("labels.txt").decode().split() == list("abcdefghij")
    assert len(list((tmp_path / "out").iterdir())) == (2 if file_format is Format.OPENVINO else 1)


@pytest.mark.parametrize(
    ("backend", "precision", "options", "left"),
    [
        ("litert/xnnpack", Precision.INT8, ExportOptions(input="int8", output="int8"), ()),
        ("litert/xnnpack", Precision.INT8, ExportOptions(), ("MUL", "ADD", "QUANTIZE", "DEQUANTIZE")),
        ("onnxruntime/cpu", Precision.INT8, ExportOptions(input="uint8", output="uint8"), ()),
        ("onnxruntime/cpu", Precision.INT8, ExportOptions(layout="nchw"), ("QuantizeLinear", "DequantizeLinear")),
        ("openvino/cpu", Precision.INT8, ExportOptions(), None),
        ("litert/xnnpack", Precision.DYNAMIC_INT8, ExportOptions(), None),
    ],
)
def test_an_int8_file_comes_with_what_it_still_computes_in_float(
    converter: Converter,
    calibrated: dict[Precision, Student],
    tmp_path: Path,
    backend: str,
    precision: Precision,
    options: ExportOptions,
    left: tuple[str, ...] | None,
) -> None:
    save_student(calibrated[precision], tmp_path / "student")
    where = Backend.model_validate(backend)
    path = tmp_path / f"model{formats_of(where)[0].suffix}"
    result = converter.convert(tmp_path / "student", formats_of(where)[0], options, where, None, path)
    assert result.outcome is ConversionOutcome.OK, result.detail
    found = result.float_operators
    assert (None if found is None else tuple(operator.split(" (")[0] for operator in found)) == left


def test_a_student_that_cant_have_the_file_is_refused_in_words(
    converter: Converter, calibrated: dict[Precision, Student], tmp_path: Path
) -> None:
    save_student(calibrated[Precision.FLOAT32], tmp_path / "student")
    options = ExportOptions(output="int8")
    result = converter.convert(tmp_path / "student", Format.ONNX, options, ORT, None, tmp_path / "model.onnx")
    assert result.outcome is ConversionOutcome.REFUSED
    assert "output int8 needs precision int8" in result.detail


def test_a_student_that_can_not_be_read_is_no_outcome(converter: Converter, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="can't read"):
        _convert(converter, tmp_path / "nothing", tmp_path / "model.onnx")


def test_a_wrong_suffix_is_the_callers_mistake(converter: Converter, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"named \*\.onnx, not model\.tflite"):
        _convert(converter, tmp_path, tmp_path / "model.tflite")


@pytest.mark.parametrize(
    ("end", "remedy"),
    [
        (_End(ConversionOutcome.CRASHED, "the worker died: SIGKILL", fault=True), "free memory"),
        (_End(ConversionOutcome.OUT_OF_MEMORY, "MemoryError: "), "free memory"),
        (_End(ConversionOutcome.REFUSED, "ImportError: no module"), "reinstall edgekd's dependencies"),
    ],
)
def test_what_to_do_about_a_converter_that_can_not_be_loaded_depends_on_why(tmp_path, monkeypatch, end, remedy):
    monkeypatch.setattr(Converter, "_start", lambda self: None)
    monkeypatch.setattr(Converter, "_ask", lambda *_: end)
    with Converter(tmp_path) as converter, pytest.raises(MissingError, match=re.escape(end.detail)) as raised:
        converter._ready(Format.TFLITE)
    assert remedy in raised.value.remedy


def test_a_converter_that_does_not_start_in_time_says_how_busy_the_machine_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (24.2, 20.0, 10.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    late = SimpleNamespace(outcome=ConversionOutcome.HUNG, detail="no answer within 180 s")
    monkeypatch.setattr(Converter, "_start", lambda self: None)
    monkeypatch.setattr(Converter, "_ask", lambda *_: late)
    with (
        Converter(tmp_path) as converter,
        pytest.raises(MissingError, match=r"180 s to start \(load 24 on 2 cores\)") as raised,
    ):
        converter._ready(Format.TFLITE)
    assert "run the same command again" in raised.value.remedy
