"""`Run`: a run folder, created once, opened again by resumptions, replays, reports and exports.

The layout is in `edgekd.store.records`. A writer holds `Run.writing`; readers need no lock.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TypeVar

from edgekd.artefacts import Artefact
from edgekd.errors import ConfigurationError, Place
from edgekd.records import Filed
from edgekd.store.atomic import sweep, write_json
from edgekd.store.differentiable import LatenciesRecord, LatencyModelRecord, SupernetRecord, TeacherTuningRecord
from edgekd.store.explanation import ExplanationRecord
from edgekd.store.lock import RunBusy, locked
from edgekd.store.predicted import NetworksRecord, PredictorsRecord, PriorTablesRecord
from edgekd.store.records import (
    AutoRecord,
    DeploymentsRecord,
    FeaturesRecord,
    FiltersRecord,
    FinalistRecord,
    OriginalRecord,
    OutcomeRecord,
    PlanRecord,
    ProposalsRecord,
    RecheckRecord,
    ReferenceArchRecord,
    RoundRecord,
    RunHeader,
    ShortlistRecord,
    StagesRecord,
    TeachersRecord,
    TrialRecord,
)
from edgekd.store.schema import read_record
from edgekd.targets.target import Target

__all__ = ["Run", "record_at"]

_SWEEP_S = 5.0  # at most: a reader that opens the folder holds the lock while it sweeps
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

FiledT = TypeVar("FiledT", bound=Filed)

_SINGLE: dict[type[Filed], str] = {
    RunHeader: "run.json",
    PlanRecord: "plan.json",
    AutoRecord: "auto.json",
    TeachersRecord: "teachers.json",
    FeaturesRecord: "features.json",
    FiltersRecord: "filters.json",
    NetworksRecord: "networks.json",
    PriorTablesRecord: "prior_tables.json",
    OriginalRecord: "original.json",
    DeploymentsRecord: "deployments.json",
    LatencyModelRecord: "latency_model.json",
    SupernetRecord: "supernet.json",
    ProposalsRecord: "proposals.json",
    ShortlistRecord: "shortlist.json",
    OutcomeRecord: "outcome.json",
    StagesRecord: "stages.json",
    ExplanationRecord: "explanation.json",
}
_NUMBERED: dict[type[Filed], tuple[str, str, int]] = {  # folder, the field that names the file, its digits
    ReferenceArchRecord: ("reference-archs", "number", 2),
    TrialRecord: ("trials", "number", 4),
    PredictorsRecord: ("predictors", "number", 2),
    RoundRecord: ("rounds", "number", 2),
    LatenciesRecord: ("latencies", "number", 2),
    TeacherTuningRecord: ("teacher-tunings", "trial", 4),
    RecheckRecord: ("rechecks", "trial", 4),
    FinalistRecord: ("finalists", "rank", 2),
}

_FOLDERS = tuple(folder for folder, *_ in _NUMBERED.values())
_PRELIMINARY = (
    RunHeader,
    PlanRecord,
    TeachersRecord,
    PriorTablesRecord,
)  # written before anything is measured or trained


def record_at(place: PurePath) -> type[Filed] | None:
    """Record class of a file, by its path inside a run's folder; None for files that are no record."""
    if len(place.parts) == 1:
        return next((model for model, name in _SINGLE.items() if place.name == name), None)
    return next((model for model, (folder, *_) in _NUMBERED.items() if place.parts[0] == folder), None)


def _of_a_run(names: Iterable[str]) -> bool:
    known = {*_SINGLE.values(), *_FOLDERS}
    return not known.isdisjoint(names)


class Run:
    """Folder of one run. Readers return None, or nothing, for records not written yet.

    All readers raise ConfigurationError naming a file that can't be read.
    """

    def __init__(self, folder: Path, header: RunHeader) -> None:
        self.folder, self.header = folder, header
        self._target: Target | None = None

    @classmethod
    def create(cls, folder: Path, header: RunHeader) -> Run:
        """Start a run in a new or empty folder. Raises ConfigurationError where it holds something else."""
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            sweep(folder)
            found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            if found:
                raise ConfigurationError.one(
                    f"a run can't start here: the folder holds {', '.join(found[:3])}"
                    + (", of a run whose run.json is gone" if _of_a_run(found) else ""),
                    "give another folder, or delete this one",
                    Place(str(folder)),
                )
            write_json(folder / "run.json", header)
        return cls(folder, header)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run. Leftovers of a killed writer are swept, unless another writer is at work."""
        folder = folder.absolute()
        path = folder / "run.json"
        if not path.is_file():
            raise ConfigurationError.one(
                "is not a run folder (it has no run.json)", "list runs with: edgekd runs", Place(str(folder))
            )
        header = read_record(path, RunHeader)
        try:
            with locked(folder):
                sweep(folder)
        except RunBusy:
            pass  # a writer is at work: its files are not leftovers
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
        return cls(folder, header)

    def has_begun(self) -> bool:
        """Tell whether anything was measured or trained, beyond facts read from the project and its teacher."""
        return any(self._place(model, None).exists() for model in _SINGLE if model not in _PRELIMINARY) or any(
            (self.folder / folder).is_dir() for folder in (*_FOLDERS, "students", "stages")
        )

    def begin_anew(self, header: RunHeader) -> Run:
        """Give the same folder to another project, before anything has begun. Raises OSError, and RunBusy."""
        with self.writing():
            for model in _PRELIMINARY:
                if model is not RunHeader:  # replaced in one step, so that the folder always holds a run
                    self.remove(model)
            write_json(self.folder / _SINGLE[RunHeader], header)
        return Run(self.folder, header)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for writing. Raises RunBusy, which names the process that holds it."""
        with locked(self.folder, _SWEEP_S):
            sweep(self.folder)
            yield

    def path(self, name: str) -> Path:
        """Path of a file or folder of the layout."""
        return self.folder / name

    @property
    def students(self) -> Path:
        """Folder of students by key."""
        return self.folder / "students"

    @property
    def stages(self) -> Path:
        """Folder of the checkpoints of recipe stages by key."""
        return self.folder / "stages"

    @property
    def artefacts(self) -> Path:
        """Folder of finalists' model files by digest."""
        return self.folder / "artefacts"

    @property
    def scratch(self) -> Path:
        """Folder of files that no record refers to; may be deleted whenever nobody writes."""
        return self.folder / "scratch"

    @property
    def target(self) -> Target:
        """Target of the run; limits relative to the user's own model are absolute once that is measured."""
        if self._target is None and self.header.target.relative:
            original = self.original()
            self._target = original.target if original is not None else None
        return self._target or self.header.target

    def plan(self) -> PlanRecord | None:
        """Plan of the run's decisions."""
        return self._read(PlanRecord)

    def auto(self) -> AutoRecord | None:
        """Trainings and choice of `recipe: auto`."""
        return self._read(AutoRecord)

    def teachers(self) -> TeachersRecord | None:
        """Scores of the teacher, and of those it was trained from."""
        return self._read(TeachersRecord)

    def features(self) -> FeaturesRecord | None:
        """Static features of the archs."""
        return self._read(FeaturesRecord)

    def filters(self) -> FiltersRecord | None:
        """Report of the constraint filters."""
        return self._read(FiltersRecord)

    def networks(self) -> NetworksRecord | None:
        """Kernels of every arch analysed."""
        return self._read(NetworksRecord)

    def prior_tables(self) -> PriorTablesRecord | None:
        """Prior observations from earlier work on this device."""
        return self._read(PriorTablesRecord)

    def predictors(self) -> tuple[PredictorsRecord, ...]:
        """Fits of the latency predictor, in order."""
        return self._read_all(PredictorsRecord)

    def original(self) -> OriginalRecord | None:
        """Baseline of the user's own untouched model."""
        return self._read(OriginalRecord)

    def deployments(self) -> DeploymentsRecord | None:
        """Ranking of the deployments."""
        return self._read(DeploymentsRecord)

    def proposals(self) -> ProposalsRecord | None:
        """End of proposing."""
        return self._read(ProposalsRecord)

    def latency_model(self) -> LatencyModelRecord | None:
        """Latency model fitted to `latencies`."""
        return self._read(LatencyModelRecord)

    def supernet(self) -> SupernetRecord | None:
        """Training of the choice of an arch."""
        return self._read(SupernetRecord)

    def shortlist(self) -> ShortlistRecord | None:
        """Shortlist measured before refining, where refining takes long."""
        return self._read(ShortlistRecord)

    def outcome(self) -> OutcomeRecord | None:
        """Outcome of the run."""
        return self._read(OutcomeRecord)

    def stages_record(self) -> StagesRecord | None:
        """Chosen student after each stage."""
        return self._read(StagesRecord)

    def explanation(self) -> ExplanationRecord | None:
        """Explanation of the training, where it was asked for."""
        return self._read(ExplanationRecord)

    def reference_archs(self) -> tuple[ReferenceArchRecord, ...]:
        """Reference archs measured so far, in order."""
        return self._read_all(ReferenceArchRecord)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Trials that ended, by number."""
        return self._read_all(TrialRecord)

    def rounds(self) -> tuple[RoundRecord, ...]:
        """Iterations so far, in order; the last may not be measured yet."""
        return self._read_all(RoundRecord)

    def latencies(self) -> tuple[LatenciesRecord, ...]:
        """Batches of archs measured for the latency model, in order."""
        return self._read_all(LatenciesRecord)

    def teacher_tunings(self) -> tuple[TeacherTuningRecord, ...]:
        """Teacher tuning of each finalist, by trial."""
        return self._read_all(TeacherTuningRecord)

    def rechecks(self) -> tuple[RecheckRecord, ...]:
        """Finalists' archs on other deployments, by trial."""
        return self._read_all(RecheckRecord)

    def finalists(self) -> tuple[FinalistRecord, ...]:
        """Finalists so far, by rank."""
        return self._read_all(FinalistRecord)

    def write(self, record: Filed) -> Path:
        """Write a record to its place, over an earlier one. Raises OSError, KeyError on a record of no run."""
        number = getattr(record, _NUMBERED[type(record)][1]) if type(record) in _NUMBERED else None
        path = self._place(type(record), number)
        write_json(path, record)
        return path

    def remove(self, model: type[Filed], number: int | None = None) -> None:
        """Delete a record if it exists: a resumed run makes it again. Raises OSError."""
        self._place(model, number).unlink(missing_ok=True)

    def _place(self, model: type[Filed], number: int | None) -> Path:
        if model not in _NUMBERED:
            return self.folder / _SINGLE[model]
        folder, _, digits = _NUMBERED[model]
        return self.folder / folder / f"{number:0{digits}d}.json"

    def resolve(self, artefact: Artefact) -> Artefact:
        """Return an artefact of a record with its path made absolute."""
        return artefact.but(path=self.folder / artefact.path)

    def _read(self, model: type[FiledT]) -> FiledT | None:
        path = self.folder / _SINGLE[model]
        return read_record(path, model) if path.is_file() else None

    def _read_all(self, model: type[FiledT]) -> tuple[FiledT, ...]:
        folder = self.folder / _NUMBERED[model][0]
        if not folder.is_dir():
            return ()
        paths = [path for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdigit()]
        return tuple(read_record(path, model) for path in sorted(paths, key=lambda path: int(path.stem)))
