from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd import errors
from edgekd.cli.main import COMMANDS, main
from edgekd.cli.terminal.output import CommandOutput


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("edgekd.targets.listing.list_targets", fail)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_alone_it_shows_eight_things(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert sum(line.startswith("  ") for line in shown.splitlines()) == 8
    assert all(f"  edgekd {name} " in shown for name in ("search", "compress", "bench", "export"))
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize(("typed", "near"), [("serch", "search"), ("target", "targets"), ("verfy", "verify")])
def test_an_unknown_command_offers_the_nearest(typed: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert f"Did you mean `{near}`?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["search"], ["targets"], ["targets", "list"]])
def test_h_is_help_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "-h"]) == 0
    short = capsys.readouterr().out
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out == short


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["search"], ["[PROJECT=project.yaml]", "[default: (the project's)]", "[default: text]"]),
        (["bench"], ["[default: 5;", "every one that loads the file"]),
        (["verify"], ["[default: (this-computer)]"]),
        (["runs"], ["[FOLDER=runs]"]),
        (["profile"], ["[DEVICE=this-computer]"]),
    ],
)
def test_help_shows_what_holds_where_nothing_is_said(
    words: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(part in text for part in shown)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "a.onnx", "--threads", "x"], "'x' is not a whole number from 1 "),
        (["bench", "a.onnx", "--processes", "0"], "'0' is not a whole number from 1 "),
        *((["bench", "a.onnx", "--rate", rate], f"'{rate}' is not a number above 0") for rate in ("inf", "nan", "0")),
        (["search", "--seed", "-1"], "'-1' is not a whole number from 0 to 4294967295"),
    ],
)
def test_a_number_is_refused_in_plain_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["project.yaml"], ["--target", "x"], ["--budget", "5 min"], ["--seed", "1"], ["--run", "r"], ["--set", "a=1"]],
)
def test_a_replay_takes_nothing_else(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *words, "--replay", "runs/a"]) == 2
    said = capsys.readouterr().err
    assert f"takes no {'PROJECT' if words == ['project.yaml'] else words[0]}" in said
    assert "edgekd search --replay runs/a" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check", "--set", "search.seed={"], 3, "--set search.seed"),
        (["runs", "--compare", "none"], 2, "no run in none"),
    ],
)
def test_a_mistake_in_an_options_value_is_answered_in_json(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--format", "json"]) == code
    assert said in json.dumps(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_line_is_wrapped_on_a_terminal_alone(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    CommandOutput().lines(["certified  litert int8 . " + " . ".join(["p95 7.42 us [7.11 us, 7.68 us]"] * 4)])
    lines = capsys.readouterr().out.splitlines()
    assert (max(map(len, lines)) <= 80) is terminal
    assert len(lines) == (3 if terminal else 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_first_line_of_an_error_is_wrapped_on_a_terminal_alone(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main(["bench", f"{'a long name ' * 12}.tflite"]) == 3
    assert (max(map(len, capsys.readouterr().err.splitlines())) <= 80) is terminal


def test_an_unknown_option_is_usage() -> None:
    assert main(["targets", "list", "--nothing"]) == 2
    assert main(["--nothing"]) == 2


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"targets", "devices", "tables"}))
def test_every_commands_help_starts_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Example: edgekd {name}")
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no"), 2),
        (errors.ConfigurationError.one("no"), 3),
        (errors.UnknownName("thing", "a", ["b"]), 3),
        (errors.MissingError("no"), 4),
        (errors.DeviceBusy("no"), 4),
        (errors.NothingFits("no"), 5),
        (errors.Unstable("no"), 6),
        (errors.ParityFailed("no"), 7),
        (errors.Interrupted("no"), 130),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "runs"), 4),
        (OSError(28, "No space left on device"), 4),
        (MemoryError(), 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 4),
        (RuntimeError("basic_ios::clear: iostream error"), 4),
        (caused(errors.ConfigurationError.one("no graph", "rewrite it"), MemoryError()), 4),
        (caused(errors.ConfigurationError.one("no file"), OSError(2, "No such file or directory")), 3),
        (caused(RuntimeError("surprise"), OSError(28, "No space left on device")), 4),
        (caused(RuntimeError("surprise"), FileNotFoundError(2, "No such file or directory")), 1),
        (RuntimeError("surprise"), 1),
        (SystemExit(0), 3),  # as code of a project may: this file is a person's
    ],
)
@pytest.mark.parametrize("style", ["text", "json"])
def test_exit_codes_come_from_the_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    style: str,
) -> None:
    raising(monkeypatch, error)
    assert main(["targets", "list", "--format", style]) == code
    shown = capsys.readouterr()
    assert shown.err
    assert "Traceback" not in shown.err
    if style == "json":
        body = json.loads(shown.out)
        assert (body["schema"], body["exit_code"]) == ("edgekd.error/1", code)
    else:
        assert shown.out == ""


def test_a_bug_is_written_down_and_shown_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raising(monkeypatch, RuntimeError("surprise"))
    assert main(["targets", "list", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    (written,) = (tmp_path / "state" / "edgekd" / "crashes").iterdir()
    assert "surprise" in written.read_text()


def test_all_problems_are_shown_the_first_one_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [errors.Place("a.yaml", line, 3, "f", "  f: 1") for line in (1, 2, 3)]
    found = errors.ConfigurationError([errors.Problem("wrong", "right it", place) for place in places])
    raising(monkeypatch, found)
    assert main(["targets", "list"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a.yaml:1:3  f: wrong"
    assert "2 more problems:" in lines
    assert "  a.yaml:3:3  f: wrong" in lines


def test_the_answers_own_exit_code_counts(capsys: pytest.CaptureFixture[str]) -> None:
    class Nothing:
        exit_code = 5

        def lines(self) -> list[str]:
            return ["no candidate"]

        def model_dump_json(self, *, by_alias: bool = True, indent: int | None = None) -> str:
            return "{}"

    output = CommandOutput()
    output.answer(Nothing())
    assert output.exit_code == 5
    assert capsys.readouterr().out == "no candidate\n"


def test_json_answers_name_their_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "list", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "edgekd.targets/1"


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m edgekd.cli.main devices list --format json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.slow
def test_an_error_that_nobody_reads_on_stdout_is_still_reported_on_stderr() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "edgekd.cli.main", "verify", "no-such-bundle", "--format", "json"],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert "no-such-bundle" in done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def _buffered() -> dict[str, str]:
    """The environment in which Python buffers its output, as most people's does."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def _unread(arguments: list[str], stderr_too: bool = True) -> int:
    """The exit code of Python where nobody reads stdout, nor stderr on the same pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        stderr = subprocess.STDOUT if stderr_too else subprocess.DEVNULL
        return subprocess.run(
            [sys.executable, *arguments], stdout=gone, stderr=stderr, timeout=60, check=False, env=_buffered()
        ).returncode


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["bench", "no-such.onnx"], 3),
        (["bench", "no-such.onnx", "-v"], 3),
        (["bench", "no-such.onnx", "--format", "json"], 3),
        (["bench", "--nothing"], 2),
    ],
)
@pytest.mark.slow
def test_an_error_that_nobody_reads_at_all_still_has_its_exit_code(arguments: list[str], code: int) -> None:
    assert _unread(["-m", "edgekd.cli.main", *arguments]) == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize("arguments", [["devices", "list"], ["--help"], ["--version"]])
@pytest.mark.slow
def test_an_answer_that_a_full_disk_does_not_take_is_an_error(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "edgekd.cli.main", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=_buffered()
        )
    assert done.returncode == 4
    assert done.stderr.count("No space left on device") == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


ANSWERING = """\
import sys

from edgekd import api
from edgekd.cli.main import main


class Undecided:
    exit_code = 6

    def lines(self):
        return ["more than a pipe's buffer holds"] * 5000

    markdown_lines = lines
    detail_lines = lines

    def model_dump_json(self, **_):
        return "[" + "0, " * 50000 + "0]"


def bench(*_, events, **__):
    events.progress("measuring", 1, 1)
    return Undecided()


api.bench = bench
sys.exit(main(["bench", "a.onnx", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("stderr_too", [False, True])
@pytest.mark.parametrize("options", [[], ["-v"], ["--markdown"], ["--format", "json"]])
@pytest.mark.slow
def test_an_answer_that_nobody_reads_still_has_its_exit_code(options: list[str], stderr_too: bool) -> None:
    assert _unread(["-c", ANSWERING, *options], stderr_too) == 6


def test_help_answers_at_once() -> None:
    def seconds(*arguments: str) -> float:
        """Of a processor: how long it waits for one is not its doing."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=dict(os.environ))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = helped = float("inf")
    for _ in range(10):  # other programs can slow a start, never hasten it
        bare, helped = min(bare, seconds("-c", "pass")), min(helped, seconds("-m", "edgekd.cli.main", "--help"))
        if helped - bare < 0.3:
            return
    assert helped - bare < 0.3


@pytest.mark.slow
def test_a_closed_stdout_is_like_one_that_nobody_reads() -> None:
    command = f"{sys.executable} -m edgekd.cli.main devices list"
    done = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run(f"{command} --nothing >&- 2>&-", shell=True, timeout=60, check=False).returncode == 2


def test_a_working_folder_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    os.chdir(here)
    here.rmdir()
    assert main(["devices", "list"]) == 4
    assert "the working folder is gone" in capsys.readouterr().err


def test_what_a_projects_code_prints_is_no_part_of_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekd.targets import listing

    listed = listing.list_targets

    def printing() -> object:
        print("epoch 1")  # noqa: T201  # as a person's code does
        return listed()

    monkeypatch.setattr("edgekd.targets.listing.list_targets", printing)
    assert main(["targets", "list", "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["schema"] == "edgekd.targets/1"
    assert "epoch 1" in shown.err


def test_want_of_memory_says_what_to_do_about_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (
        OSError(12, "Cannot allocate memory"),
        caused(errors.ConfigurationError.one("the module can't be turned into a graph", "rewrite it"), MemoryError()),
    ):
        raising(monkeypatch, error)
        assert main(["targets", "list"]) == 4
        shown = capsys.readouterr().err
        assert "free some memory" in shown
        assert "rewrite" not in shown


def test_v_shows_where_a_persons_code_ended_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, SystemExit(2))
    assert main(["targets", "list", "-v"]) == 3
    shown = capsys.readouterr().err
    assert "SystemExit: 2" in shown
    assert "Traceback" in shown


def test_a_start_under_another_locale_keeps_pythons_own_flags(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n\ndef printing(_, words):\n    print(*words, flush=True)\n    os._exit(0)\n\nos.execv = printing\n"
    )
    words = ["-W", "ignore", "-m", "edgekd.cli.main", "targets", "list"]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        timeout=120,
        check=False,
        text=True,
    )
    assert done.stdout.split()[1:] == ["-X", "utf8", *words], done.stderr


@pytest.mark.slow
def test_names_of_files_are_utf_8_whatever_the_locale_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", "verify", "b\u00fcndel"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert "b\u00fcndel" in done.stderr.decode()


def test_what_was_imported_is_not_looked_through_for_garbage_at_the_end() -> None:
    script = (
        "import atexit, gc, sys\n"
        "from edgekd.cli.main import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "sys.argv = ['edgekd', '--version']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
