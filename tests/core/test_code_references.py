from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgekd.code_references import CodeReference, ExistingFile, running
from edgekd.errors import ConfigurationError, Interrupted, MissingError
from edgekd.records import Record


class Part(Record):
    module: CodeReference
    weights: ExistingFile | None = None


def test_a_module_is_imported_from_the_projects_folder(tmp_path: Path) -> None:
    (tmp_path / "my_own_model.py").write_text("def build():\n    return 7\n")
    part = Part.model_validate({"module": "my_own_model.py:build"}, context={"folder": tmp_path})
    assert part.module.resolve()() == 7
    assert str(tmp_path) not in sys.path


def test_warnings_of_packages_that_edgekd_brings_along_are_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Transformers imports torchao, which names each of its kernels for GPUs that does not load here."""
    for name in ("torchao", "my_own"):  # an export in this process may have raised the root's level
        caplog.set_level(logging.WARNING, logger=name)
    (tmp_path / "my_own_warner.py").write_text(
        "import logging\n"
        "logging.getLogger('torchao').warning('a kernel for another machine')\n"
        "logging.getLogger('my_own').warning('of the model itself')\n"
        "def build(): ...\n"
    )
    CodeReference.parse("my_own_warner:build", tmp_path).resolve()
    assert logging.getLogger("torchao.quantization").isEnabledFor(logging.ERROR)
    assert [record.name for record in caplog.records] == ["my_own"]


def test_two_projects_with_modules_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name, answer in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name_model.py").write_text(f"def build():\n    return {answer}\n")
    answers = [CodeReference.parse("same_name_model:build", tmp_path / name).resolve()() for name in ("one", "two")]
    assert answers == [1, 2]


def test_a_module_named_like_pythons_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("def build(): ...\n")
    with pytest.raises(ConfigurationError, match=r"rename random\.py"):
        CodeReference.parse("random:build", tmp_path).resolve()


@pytest.mark.parametrize(
    ("source", "asked", "words"),
    [
        ("def build(): ...\n", "modell:build", "did you mean `model`"),
        ("def build(): ...\n", "model:bild", "did you mean `build`"),
        ("import not_there_at_all\n", "model:build", "install not_there_at_all"),
        ("1 / 0\n", "model:build", "ZeroDivisionError"),
        ("raise SystemExit\n", "model:build", "SystemExit"),
        ("build = 3\n", "model:build", "no function `build`"),
    ],
)
def test_what_is_wrong_with_the_code_is_said(tmp_path: Path, source: str, asked: str, words: str) -> None:
    (tmp_path / "model.py").write_text(source)
    sys.modules.pop("model", None)
    with pytest.raises(ConfigurationError, match=words):
        CodeReference.parse(asked, tmp_path).resolve()


@pytest.mark.parametrize("text", ["model", "model:", ":build", "model:not a name", ""])
def test_text_that_is_no_reference(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a code reference"):
        CodeReference.parse(text, tmp_path)


def test_a_missing_file_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "teacher.safetensors").touch()
    with pytest.raises(ValidationError, match=r"did you mean `teacher\.safetensors`"):
        Part.model_validate({"module": "m:f", "weights": "techer.safetensors"}, context={"folder": tmp_path})


def test_code_that_ends_the_process_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    source = "import argparse\n\ndef build():\n    argparse.ArgumentParser().parse_args(['--nothing'])\n"
    (tmp_path / "parsing_model.py").write_text(source)
    reference = CodeReference.parse("parsing_model:build", tmp_path)
    build = reference.resolve()
    with (
        pytest.raises(ConfigurationError, match=r"`build` ended the process: sys\.exit\(2\)") as raised,
        running(reference, ""),
    ):
        build()
    place = raised.value.problems[0].place
    assert (place.file, place.line) == (str(tmp_path / "parsing_model.py"), 4)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("MemoryError()", MemoryError),
        ("RuntimeError('DefaultCPUAllocator: cannot, Cannot allocate memory')", RuntimeError),
        ("OSError(28, 'No space left on device', 'x')", OSError),
        ("edgekd.errors.MissingError('no onnxruntime')", MissingError),
        ("edgekd.errors.Interrupted('stopped')", Interrupted),
        ("FileNotFoundError(2, 'No such file', 'weights.pt')", ConfigurationError),
        ("ValueError('no')", ConfigurationError),
    ],
)
def test_what_the_machine_refuses_is_no_mistake_of_a_persons_code(
    raised: str, kind: type[Exception], tmp_path: Path
) -> None:
    (tmp_path / "short_model.py").write_text(f"import edgekd.errors\n\ndef build():\n    raise {raised}\n")
    reference = CodeReference.parse("short_model:build", tmp_path)
    build = reference.resolve()
    with pytest.raises(kind), running(reference, ""):
        build()
    (tmp_path / "short_import.py").write_text(f"import edgekd.errors\n\nraise {raised}\n")
    with pytest.raises(kind if not issubclass(kind, (MissingError, Interrupted)) else ConfigurationError):
        CodeReference.parse("short_import:build", tmp_path).resolve()


def test_the_working_folder_is_the_same_after_a_persons_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandering_model.py").write_text("import os\nos.chdir('/')\n\ndef build():\n    os.chdir('/')\n")
    reference = CodeReference.parse("wandering_model:build", tmp_path)
    build = reference.resolve()
    assert Path.cwd() == tmp_path
    with running(reference, ""):
        build()
    assert Path.cwd() == tmp_path


def test_a_link_keeps_its_name(tmp_path):
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    found = Part.model_validate({"module": "my.py:build", "weights": "model.safetensors"}, context={"folder": tmp_path})
    assert found.weights == tmp_path / "model.safetensors"


def test_a_module_with_a_dot_in_its_name_is_refused_by_it(tmp_path):
    (tmp_path / "net.v2.py").write_text("def build(): ...")
    with pytest.raises(ValueError, match="has no dot"):
        CodeReference.parse("net.v2.py:build", tmp_path)
