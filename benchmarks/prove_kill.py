"""Nothing finished is ever lost: a search is killed again and again, started again by the same command, and examined.

Half of the kills come at a random time, half within two seconds of a random step's first line; two in three take the
whole process group, the rest only the command itself, whose helpers must then end by themselves. After each kill every
file of the run must be readable as its record, nothing finished before may have changed or been written again, and no
process may be left. A run that came to its end must have chosen, replay alike, do nothing when asked again, and verify.
Kills go on over as many runs as they need. (Weights are not compared between runs: each training picks its number
format and layout by a timed probe, so that two runs nobody killed differ as well.)

Run: python benchmarks/prove_kill.py [--kills 20] [--seed 0] [--demo | --small] (half an hour; exit code 1: it broke)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from cells import versions

from edgekd.agent.fingerprint import fingerprint
from edgekd.artefacts import Artefact
from edgekd.bundle.preprocess import PREPROCESS, Preprocess
from edgekd.errors import EdgeKDError
from edgekd.ir.backends import asked_of_agent
from edgekd.recipes.runner import Done
from edgekd.records import digest_file
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.run import record_at
from edgekd.store.schema import read_record
from edgekd.students.student import load_student

RESULT = Path(__file__).parent / "results" / "kill.json"
DEMO = Path(__file__).parent.parent / "examples" / "digits"
PROJECT = """\
schema: edgekd.project/1
task: {kind: digits, train_limit: 384}
teacher: {kind: train, width: 16, epochs: 3}
student: {family: resnet, stages: 2, space: {width: [8, 24], depth: [1, 2]}}
target: target.yaml
recipe:
  - distill: {loss: {kd: {temperature: 4, weight: 0.5}}, epochs: 4, batch_size: 32, ema: 0, precision: float32}
  - quantize: {precision: int8}
search: {budget: 2 h, trials: 4, finalists: 2, reference_archs: 2, batch: 2, accuracy: {short: {epochs: 1}}}
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [onnxruntime/cpu, openvino/cpu]
budgets:
  latency: {p95: 50 ms}
  size: {file: 256 KiB}
"""
SMALL = {  # the same steps, each once or twice
    "trials: 4": "trials: 2", "reference_archs: 2": "reference_archs: 1", "epochs: 4, batch": "epochs: 2, batch",
    "width: [8, 24]": "width: [8, 16]", ", openvino/cpu": "",
}  # fmt: skip
STEPS = ("teacher", "edgekd", "filters", "deployments", "searching", "distill", "searched", "refining", "comparing",
         "certifying", "stage by stage", "bundle")  # fmt: skip
LATER = ("seen", "never_slower", "measurement")  # a finalist's fields that are added, each once
FREE = {*LATER, "figures", "verdict", "chosen", "reason", "ended_s"}
Snapshot = dict[str, tuple[str, int]]


class Command:
    """``edgekd search`` in a process group of its own, its last words remembered."""

    def __init__(self, project: Path, run: Path, cache: Path, token: str) -> None:
        self.environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(cache),
            "XDG_STATE_HOME": str(cache / "state"),
            "TMPDIR": str(cache / "tmp"),
            "OMP_NUM_THREADS": "1",
            "EDGEKD_PROVE_KILL": token,
        }
        (cache / "tmp").mkdir(parents=True, exist_ok=True)
        self.arguments = [sys.executable, "-m", "edgekd.cli.main"]
        self.token, self.said, self.new_step = token, list[str](), threading.Event()
        self.wanted = ""
        self.process = subprocess.Popen(
            [*self.arguments, "search", str(project), "--run", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if self.wanted and line.startswith(self.wanted):
                self.new_step.set()

    def kill(self, rng: random.Random, longest_s: float, whole_group: bool) -> bool:
        """Kill it at a random moment; False where it ended before."""
        if rng.random() < 0.5:
            self.wanted = rng.choice(STEPS)
            end = time.monotonic() + 3 * longest_s
            while not self.new_step.wait(0.05) and self.process.poll() is None and time.monotonic() < end:
                pass
            delay_s = rng.uniform(0.0, 2.0)
        else:
            delay_s = rng.uniform(0.5, longest_s)
        try:
            self.process.wait(delay_s)
        except subprocess.TimeoutExpired:
            pass
        else:
            return False
        (os.killpg if whole_group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return True

    def leftovers(self, patience_s: float = 30.0) -> list[str]:
        """Processes with this command's mark that still live after a while."""
        end = time.monotonic() + patience_s
        while (alive := [" ".join(p.cmdline()[:4]) for p in _marked(self.token)]) and time.monotonic() < end:
            time.sleep(0.1)
        return alive

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Another command of edgekd, to its end: exit code, and all it said."""
        done = subprocess.run([*self.arguments, *arguments], env=self.environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


def _marked(token: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get("EDGEKD_PROVE_KILL") == token and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def unreadable(run: Path) -> list[str]:
    """Files of a run that can't be read as their record, and files nobody knows. Drafts of killed writers are fine."""
    problems = []
    for path in _files(run):
        place = path.relative_to(run)
        top, name = place.parts[0], place.name
        try:
            if top == "students":
                if name == "student.json":
                    load_student(path.parent)
            elif top == "bundle":
                if name in (CERTIFICATE, PREPROCESS):
                    read_record(path, Certificate if name == CERTIFICATE else Preprocess)
            elif path.suffix == ".json":
                kind = Done if top == "stages" else record_at(place)
                if kind is None:
                    problems.append(f"{place}: a file that no run is known to hold")
                else:
                    read_record(path, kind)
            elif top == "artefacts" and path.suffix != ".bin" and Artefact.of(path).sha256 != path.stem:
                problems.append(f"{place}: not the file its name says")
        except (EdgeKDError, ValueError, OSError) as error:
            problems.append(f"{place}: {type(error).__name__}: {error}")
    return problems


def snapshot(run: Path, cache: Path) -> Snapshot:
    """Everything finished: digest and time of writing, by path. A finalist's record is kept whole, for it grows.

    Model files count once a finalist names them: those of trials are deleted after they were measured.
    """
    found: Snapshot = {}
    named = "".join(path.read_text() for path in run.glob("finalists/*.json"))
    done = {path.parent for path in run.glob("stages/*/done.json")}
    for path in _files(run):
        place = path.relative_to(run)
        unfinished = {"report.html": True, "stages": path.parent not in done, "artefacts": path.stem not in named}
        if unfinished.get(place.parts[0]):
            continue
        what = path.read_text() if place.parts[0] == "finalists" else digest_file(path)
        found[f"run/{place}"] = (what, path.stat().st_mtime_ns)
    for path in _files(cache / "edgekd" / "teachers" / "students"):
        found[f"teacher/{path.relative_to(cache)}"] = (digest_file(path), path.stat().st_mtime_ns)
    return found


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """What was finished before, and is gone, other, or written once more."""
    problems = []
    for name, (what, written_ns) in before.items():
        if name not in after:
            problems.append(f"{name}: is gone")
        elif name.startswith("run/finalists/"):
            problems += _lost(name, json.loads(what), json.loads(after[name][0]))
        elif after[name][0] != what:
            problems.append(f"{name}: has changed")
        elif after[name][1] != written_ns and not name.startswith("run/artefacts/"):  # copied before its record
            problems.append(f"{name}: was done again")
    return problems


def _lost(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    kept = [key for key in old if key not in FREE or (key in LATER and old[key] is not None)]
    return [f"{name}: {key} has changed" for key in kept if old[key] != new[key]]


def _files(folder: Path) -> Iterator[Path]:
    """All files but drafts, the lock, and scratch."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and inside[0] != "scratch" and not any(part.startswith(".") for part in inside):
            yield path


def at_the_end(command: Command, project: Path, run: Path, cache: Path) -> list[str]:
    """What must hold of a run that came to its end."""
    problems = []
    if command.process.wait() != 0:
        problems.append(f"ended with {command.process.returncode}: {' | '.join(command.said[-5:])}")
    before = snapshot(run, cache)
    for name, arguments in {
        "search --replay": ("search", "--replay", str(run)),
        "the same command again": ("search", str(project), "--run", str(run)),
        "verify": ("verify", str(run / "bundle")),
    }.items():
        code, said = command.ask(*arguments)
        if code != 0:
            problems.append(f"{name}: exit code {code}: {said.strip()}")
    problems += [f"asked again, {problem}" for problem in changed(before, snapshot(run, cache))]
    drafts = [str(p.relative_to(run)) for p in run.rglob(".*") if p.suffix in (".tmp", ".old")]
    return [*problems, *(f"{draft}: a draft is left" for draft in drafts)]


def uninterrupted(project: Path, folder: Path) -> tuple[float, list[str]]:
    """A run nobody kills: how long it took, and what is wrong with it."""
    begun = time.monotonic()
    command = Command(project, folder / "run", folder / "cache", f"{folder.name}-{os.getpid()}")
    command.process.wait()
    took_s = time.monotonic() - begun
    return took_s, at_the_end(command, project, folder / "run", folder / "cache")


def prove(project: Path, work: Path, kills: int, seed: int, longest_s: float | None) -> dict[str, Any]:
    """Everything, with a line a kill on stdout. ``longest_s``: kills come within it; None: as a whole run needs."""
    rng, rows, problems = random.Random(seed), list[dict[str, Any]](), list[str]()
    whole_s: float | None = None
    if longest_s is None:
        whole_s, problems = uninterrupted(project, work / "whole")
        longest_s = whole_s * 0.6
        print(f"a run nobody kills takes {whole_s:.0f} s", flush=True)
    print(f"{'run':>3} {'kill':>4} {'how':<8} {'after':>7}  {'files':>5} {'left':>4} {'wrong':>5}  at", flush=True)
    number = 0
    while len(rows) < kills:
        number += 1
        folder = work / f"{number:02d}"
        run, cache = folder / "run", folder / "cache"
        before: Snapshot = {}
        while True:
            token, begun = f"{os.getpid()}-{number}-{len(rows)}", time.monotonic()
            command = Command(project, run, cache, token)
            how = "command" if rng.random() < 1 / 3 else "group"
            killed = len(rows) < kills and command.kill(rng, longest_s, how == "group")
            command.process.wait()
            after_s = time.monotonic() - begun
            left = command.leftovers()
            after = snapshot(run, cache)
            wrong = [*unreadable(run), *changed(before, after), *(f"still runs: {line}" for line in left)]
            problems += [f"run {number}, after {len(rows) + killed} kills: {problem}" for problem in wrong]
            for problem in wrong:
                print(f"      {problem}", flush=True)
            where = command.said[-1][:60] if command.said else "before its first word"
            if not killed:
                break
            rows.append({"run": number, "how": how, "after_s": round(after_s, 2), "files": len(after),
                         "left": len(left), "wrong": len(wrong), "at": where})  # fmt: skip
            print(f"{number:>3} {len(rows):>4} {how:<8} {after_s:>5.1f} s  {len(after):>5} {len(left):>4} "
                  f"{len(wrong):>5}  {where}", flush=True)  # fmt: skip
            before = after
        problems += [f"run {number}: {problem}" for problem in at_the_end(command, project, run, cache)]
    return {
        "schema": "edgekd.benchmark.kill/1", "kills": rows, "runs": number, "seed": seed, "uninterrupted_s": whole_s,
        "problems": problems,
    }  # fmt: skip


def main() -> int:
    """Exit code 1 where anything broke."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", action="store_true", help="the whole demo project in place of a small one")
    parser.add_argument("--small", action="store_true", help="an even smaller one, of one backend")
    parser.add_argument("--longest", type=float, help="seconds a command lives at most; no uninterrupted run is made")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgekd-kill-") as name:
        work = Path(name)
        project = work / "project.yaml"
        if asked.demo:
            for path in DEMO.iterdir():
                (work / path.name).write_bytes(path.read_bytes())
        else:
            for path, text in ((project, PROJECT), (work / "target.yaml", TARGET)):
                for old, new in SMALL.items() if asked.small else ():
                    text = text.replace(old, new)
                path.write_text(text)
        result = prove(project, work, asked.kills, asked.seed, asked.longest)
    result |= {"machine": fingerprint(asked_of_agent()), "versions": versions()}
    result["seconds"] = round(time.monotonic() - begun, 1)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    for problem in result["problems"]:
        print(problem)
    print(f"{len(result['kills'])} kills in {result['runs']} runs, {len(result['problems'])} problems, "
          f"{result['seconds']:.0f} s")  # fmt: skip
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
