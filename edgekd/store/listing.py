"""Runs of a folder, for `edgekd runs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgekd.errors import ConfigurationError
from edgekd.records import Filed, Shown
from edgekd.store.opening import is_finished
from edgekd.store.run import Run

__all__ = ["RunSummary", "RunsAnswer", "list_runs", "run_folders", "shortened", "trial_rows"]

_DEEPEST = 3  # runs/NAME of a project in a folder of projects


class RunSummary(Filed):
    """Summary of a run in a list."""

    schema_: Literal["edgekd.run-summary/1"] = Field(default="edgekd.run-summary/1", alias="schema")
    folder: Path
    command: str
    task: str
    target: str
    created: str
    state: str


class RunsAnswer(Shown):
    """Runs of a folder, newest first."""

    schema_: Literal["edgekd.runs/1"] = Field(default="edgekd.runs/1", alias="schema")
    runs: tuple[RunSummary, ...]

    def lines(self) -> list[str]:
        """Format as text lines."""
        if not self.runs:
            return ["no runs here. Start one: edgekd search project.yaml"]
        width = max(len(shortened(run.folder)) for run in self.runs)
        return [f"{shortened(run.folder):<{width}}  {run.task} -> {run.target}  {run.state}" for run in self.runs]


def trial_rows(run: Run) -> list[dict[str, str | float | None]]:
    """Return a flat row for each trial of a run, by number, for ``pandas.DataFrame``.

    ``trial``, ``outcome``, ``detail``, ``backend``, ``precision``, each axis of the arch, each figure by its metric (in
    its own unit: times in us, sizes in bytes), ``accuracy`` and ``accuracy_kind``.
    """
    rows = []
    for trial in sorted(run.trials(), key=lambda trial: trial.number):
        plan, scored = trial.candidate.plan, trial.accuracy
        rows.append(
            {
                "trial": trial.number,
                "outcome": trial.outcome,
                "detail": trial.detail,
                "backend": str(trial.candidate.backend),
                "precision": plan.precision.value,
                **dict(trial.candidate.arch.choices),
                **{figure.metric: figure.value for figure in trial.figures},
                "accuracy": scored.value if scored else None,
                "accuracy_kind": scored.kind.value if scored else None,
            }
        )
    return rows


def list_runs(*folders: Path) -> RunsAnswer:
    """Runs below folders, newest first; a folder that can't be read is listed as damaged."""
    found = []
    for place in dict.fromkeys(place for folder in folders for place in run_folders(folder)):
        try:
            run = Run.open(place)
            outcome = run.outcome()
            state = f"not finished, {len(run.trials())} trials: go on with the same command" if outcome is None else ""
        except ConfigurationError as error:
            summary = RunSummary(
                folder=place,
                command="",
                task="",
                target="",
                created="",
                state=f"damaged: {error.problems[0].message}",
            )
            found.append(summary)
            continue
        header = run.header
        if outcome is not None:
            decided = outcome.undecided or is_finished(run)
            state = outcome.summary if decided else "no bundle yet: go on with the same command"
        found.append(
            RunSummary(
                folder=place,
                command=header.command,
                task=header.task.name,
                target=header.target.name,
                created=header.created,
                state=state,
            )
        )
    return RunsAnswer(runs=tuple(sorted(found, key=lambda summary: summary.created, reverse=True)))


def run_folders(folder: Path, levels: int = _DEEPEST) -> Iterator[Path]:
    """This folder if it is a run, else the runs below it. Hidden folders and the inside of a run are left out."""
    try:
        begun = (folder / "run.json").is_file()
        inner = list(folder.iterdir()) if levels and not begun and folder.is_dir() else []
        below = [path for path in inner if path.is_dir() and not path.name.startswith(".")]
    except OSError:  # an unreadable folder has no runs to show
        return
    if begun:
        yield folder
    for path in below:
        yield from run_folders(path, levels - 1)


def shortened(path: Path) -> str:
    """Path relative to the working directory, where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
