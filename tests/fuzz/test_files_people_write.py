"""A damaged project or target file is a ConfigurationError with a place, or still valid: never anything else."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from edgekd.errors import ConfigurationError
from edgekd.project import read_project
from edgekd.targets.catalogue import load_target

PROJECT = """\
schema: edgekd.project/1
task: {kind: digits}
teacher: {kind: train}
student: {family: resnet, space: {width: [8, 32], depth: [1, 2]}}
target: this-computer
recipe:
  - distill: {loss: {kd: {temperature: 4, weight: 0.9}}, epochs: 3}
  - quantize
search: {budget: 3 min, seed: 7, accuracy: {short: {}}}
export: {input: uint8, batch: 1}
"""
TARGET = """\
schema: edgekd.target/1
extends: this-computer
backends: [litert/xnnpack, openvino/cpu]
threads: 1
load: {pattern: periodic, rate: 30/s}
budgets:
  latency: {p95: 33 ms, confidence: 0.95}
  memory: {model: 32 MiB}
accuracy: {floor: 0.90}
"""
PIECES = [
    "{", "}", "[", "]", ":", ": ", ",", "- ", "\n", "  ", "\t", "#", "&a", "*a", "!!int", "<<:", "|", ">", "'", '"',
    "\\", "%", "@", "`", "---", "...", "null", "~", "true", ".nan", "-.inf", "1e999", "0x10", "0o9", "9" * 30,
    "-1", "2001-01-01", "? ", "\x00", "\x1b", "\u2028", "\ufeff", "é", "𝔘", "33 ms", "1_000", "yes", "''", "{}", "[]",
    '"\\ud800"', "../../etc/passwd", "/", "resnet", "distill", "!python/object:os.system", "9" * 400, "[" * 50,
]  # fmt: skip


def mutated(text: str, rng: random.Random) -> bytes:
    """One to four small injuries."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        lines = text.split("\n")
        one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 20) :]
            case 2:
                text = text[:at] + chr(rng.randrange(1, 256)) + text[at + 1 :]
            case 3:
                lines[one], lines[two] = lines[two], lines[one]
                text = "\n".join(lines)
            case 4:
                lines.insert(one, lines[two])
                text = "\n".join(lines)
            case 5:
                value = lines[one].partition(":")[0]
                lines[one] = f"{value}: {rng.choice(PIECES)}"
                text = "\n".join(lines)
            case _:
                lines[one] = "  " * rng.randint(0, 3) + lines[one].strip()
                text = "\n".join(lines)
    raw = text.encode()
    if rng.random() < 0.05:
        at = rng.randrange(len(raw) + 1)
        raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at:]
    return raw


def _refusal(kind: str, path: Path, raw: bytes) -> ConfigurationError | None:
    try:
        if kind == "project":
            read_project(path)
        else:
            load_target(path)
    except ConfigurationError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error} on {raw!r}") from error
    return None


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", ["project", "target"])
@pytest.mark.slow
def test_damaged_files_are_told_apart_from_bugs(kind: str, part: int, tmp_path: Path) -> None:
    rng = random.Random(f"{kind} {part}")
    path = tmp_path / f"{kind}.yaml"
    refused = 0
    for _ in range(250):
        raw = mutated(PROJECT if kind == "project" else TARGET, rng)
        path.write_bytes(raw)
        started = time.monotonic()
        error = _refusal(kind, path, raw)
        assert time.monotonic() - started < 60, raw
        if error is not None:
            refused += 1
            assert all(problem.message and problem.place.file for problem in error.problems), raw
            assert all(character.isprintable() or character == "\n" for character in str(error)), raw
    assert 100 < refused < 250  # otherwise the injuries are too weak, or nothing is ever accepted
