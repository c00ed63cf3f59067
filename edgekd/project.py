"""Project file, read into its parts: task, teacher, family, target, recipe, search and export options.

Reading builds every part from its options, so that all problems of all files are known before anything is trained. It
imports no code of the person's: parts do so when they are first used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from platformdirs import user_cache_path, user_state_path
from pydantic import BaseModel, BeforeValidator, Field, PositiveInt, ValidationError, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from edgekd import plugins, search_path
from edgekd.distill.schedule import Ramp
from edgekd.documents import Document, Where, placed, plain, problems_of, read_document
from edgekd.errors import ConfigurationError, EdgeKDError, MissingError, Problem, UsageError, nearest_name
from edgekd.events import Events
from edgekd.export._protocol import ExportOptions
from edgekd.records import Record, canonical_json, digest_bytes
from edgekd.stages import Stage, out_of_order
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.students._protocol import Family
from edgekd.targets.catalogue import device_folder, load_target
from edgekd.targets.target import Target
from edgekd.tasks._protocol import PreparableTask, Task
from edgekd.teachers._protocol import Teacher
from edgekd.units import Span

__all__ = [
    "SCHEMA",
    "IterativePruning",
    "Named",
    "Project",
    "SearchOptions",
    "blamed",
    "cache_folder",
    "code_of",
    "notice_code",
    "read_project",
    "ready_data",
]

SCHEMA = "edgekd.project/1"
_SECTIONS = ("schema", "task", "teacher", "student", "target", "recipe", "search", "export")
_USUAL = {"task": "digits", "teacher": "train", "student": "resnet"}
"""Example plugin of a section, for messages."""
_AUTO = "auto"  # the one recipe that needs no list
_PROGRAM = ".pt2"  # reading one evaluates code in it
_CODE = re.compile(r"^([\w.]+|[^:\n]+\.py):[^\W\d]\w*$")


class Named(Record):
    """Part by name, with its options: written ``name`` or ``{name: {options}}``."""

    name: str
    options: Mapping[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_written(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and set(value) <= {"name", "options"}:
            return value
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, options),) = value.items()
            if options is None or isinstance(options, Mapping):
                return {"name": name, "options": options or {}}
        raise PydanticCustomError("edgekd_named", "expected a name, or one name with its options: {name: {...}}")

    @model_serializer
    def _to_written(self) -> dict[str, Any]:
        return {self.name: dict(self.options)}


class IterativePruning(Record):
    """Options of iterative pruning: ``recover`` epochs after each step, until a step gains less than ``least_gain``."""

    recover: PositiveInt = 2
    least_gain: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.02  # of the time of a call, or of the file


def _by(value: Any) -> Any:
    """Parse ``trials``, ``iterative``, ``differentiable`` or ``{differentiable: {options}}``."""
    if value == "differentiable":
        return DifferentiableOptions()
    if isinstance(value, Mapping) and set(value) == {"differentiable"}:
        return DifferentiableOptions.model_validate(value["differentiable"] or {})
    if value in ("trials", "iterative") or isinstance(value, DifferentiableOptions):
        return value
    if isinstance(value, Mapping) and set(value) == set(DifferentiableOptions.model_fields):
        return DifferentiableOptions.model_validate(value)  # as recorded, with every default
    raise PydanticCustomError(
        "edgekd_by", "expected `trials`, `iterative`, or `differentiable` alone or with its options"
    )


By = Annotated[Literal["trials", "iterative"] | DifferentiableOptions, BeforeValidator(_by)]


class SearchOptions(Record):
    """Options of a search. ``budget`` is wall-clock time; ``trials`` ends it earlier."""

    by: By = "trials"  # candidates side by side, iterative pruning of one model, or differentiable search
    iterative: IterativePruning = IterativePruning()

    budget: Span = Span(30 * 60)
    trials: PositiveInt | None = None
    finalists: PositiveInt = 3
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    sampler: str = "tpe"
    accuracy: Named | None = None  # None: `inherit` where the family gives trained weights, else `short`
    reference_archs: Annotated[int, Field(ge=1, le=100)] | None = None  # None: four to six, by the budget
    batch: Annotated[int, Field(ge=1, le=100)] = 4
    predict: bool = True  # archs predicted to be too slow are not tried

    @model_validator(mode="after")
    def _some_time(self) -> SearchOptions:
        if self.budget <= 0:
            raise ValueError("the budget must be more than nothing, for example 30 min")
        if self.sampler == "differentiable":
            raise ValueError(
                "the sampler `differentiable` goes with a trained choice: write by: differentiable, and no sampler"
            )
        return self


@dataclass(frozen=True)
class Project:
    """Project: everything a person asked for, checked and built. ``resolved`` is all of it as JSON, with defaults."""

    task: Task
    teacher: Teacher | None
    family: Family
    target: Target
    recipe: tuple[Stage, ...]
    search: SearchOptions
    export: ExportOptions
    folder: Path
    device_folder: Path  # beside which the target's device is opened
    path: Path
    document: Document
    resolved: Mapping[str, Any]
    accuracy: Any  # an AccuracyEstimate of edgekd.search, built from `search.accuracy`
    student: Mapping[str, Any]  # the family's own options, plain, to build it again in another process

    @property
    def written(self) -> Mapping[str, Any] | None:
        """What a person wrote, where the file alone doesn't hold it."""
        return None if self.document.whole else plain(self.document.data)


def read_project(
    written: Path | Document,
    target: str | None = None,
    *,
    budget: str | None = None,
    seed: int | None = None,
    notice: Callable[[str], object] | None = None,
) -> Project:
    """Read a project. ``target``, ``budget`` and ``seed`` replace its values.

    ``notice`` gets one line the first time a folder's project names code to run. Raises ConfigurationError with every
    problem of every file, MissingError where only a package is missing, and UsageError on a budget that is no duration.
    """
    document = written if isinstance(written, Document) else read_document(written)
    reading = _Reading(document)
    data = document.data
    reading.sections()
    task = reading.part("task", "edgekd.tasks", "kind")
    teacher = reading.part("teacher", "edgekd.teachers", "kind") if data.get("teacher") is not None else None
    family = reading.part("student", "edgekd.families", "family")
    contract = reading.target(target)
    recipe = reading.recipe()
    search = reading.record("search", SearchOptions)
    export = reading.record("export", ExportOptions)
    if not recipe and family is not None and not family.inherits:
        reading.untrained(family.name)
    accuracy = reading.search_parts(search, family)
    reading.finish()
    code = code_of(plain(data))
    if notice is not None and code:  # code of a project with mistakes is not run
        notice_code(document.path.resolve().parent, code, notice)
    search = _replaced(search, budget, seed)
    resolved = {
        "schema": SCHEMA,
        "task": {"kind": data["task"]["kind"], **_dump(task)},
        "teacher": {"kind": data["teacher"]["kind"], **_dump(teacher)} if teacher is not None else None,
        "student": {"family": data["student"]["family"], **_dump(family)},
        "target": contract.model_dump(mode="json"),
        "recipe": [{name: _dump(stage)} for name, stage in recipe],
        "search": {**_dump(search), "accuracy": {accuracy[0]: _dump(accuracy[1])}},
        "export": _dump(export),
    }
    canonical_json(resolved)
    return Project(
        task=task,
        teacher=teacher,
        family=family,
        target=contract,
        recipe=tuple(stage for _, stage in recipe),
        search=search,
        export=export,
        folder=document.path.resolve().parent,
        device_folder=reading.device_folder(target),
        path=document.path.resolve(),
        document=document,
        resolved=resolved,
        accuracy=accuracy[1],
        student=_dump(family),
    )


@contextmanager
def blamed(project: Project, section: str) -> Iterator[None]:
    """Put problems without a place of their own at a section of the project file."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(placed(error, project.document, (section,))) from error


def ready_data(project: Project, events: Events) -> Sequence[str]:
    """Prepare data that needs it, with progress; return lines about that, if any.

    Raises ConfigurationError, Interrupted, MissingError.
    """
    task = cast(object, project.task)
    if not isinstance(task, PreparableTask):
        return []
    with blamed(project, "task"):
        return [f"{task.what:<10} {task.prepare(partial(events.progress, task.what), events.stop)}"]


def cache_folder() -> Path:
    """Folder of teachers' logits and trained teachers, kept between runs; safe to delete."""
    return user_cache_path("edgekd")


def code_of(data: Any) -> tuple[str, ...]:
    """Code that a project file names (``my_model:build``, ``my_model.pt2``), in order, each once."""
    if isinstance(data, str):
        return (data,) if _CODE.match(data) or data.endswith(_PROGRAM) else ()
    inside = data.values() if isinstance(data, Mapping) else data if isinstance(data, list) else ()
    return tuple(dict.fromkeys(reference for value in inside for reference in code_of(value)))


def notice_code(folder: Path, code: tuple[str, ...], notice: Callable[[str], object]) -> None:
    """Report that a folder's code is about to run, unless it was reported before.

    If ``notice`` returns False, as `Events.notice` does for an unseen line, it is reported again next time.
    """
    said = user_state_path("edgekd") / "folders-with-code" / digest_bytes(str(folder).encode())[:32]
    if said.exists() or notice(f"this project runs code from {folder}: {', '.join(code)}") is False:
        return
    try:
        said.parent.mkdir(parents=True, exist_ok=True)
        said.write_text(f"{folder}\n")
    except OSError:  # a home that can't be written to: it is reported again next time
        pass


class _Reading:
    """Reading of a project file in one pass, gathering problems."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._folder = document.path.resolve().parent
        self._problems: list[Problem] = []
        self._missing: list[MissingError] = []

    def finish(self) -> None:
        """Raise the problems found."""
        if self._problems:
            self._problems.extend(Problem(error.message, error.remedy) for error in self._missing)
            raise ConfigurationError(list(dict.fromkeys(self._problems)))
        if self._missing:
            raise self._missing[0]

    def sections(self) -> None:
        """Check the top level: the schema, and no unknown section."""
        found = self._document.data.get("schema")
        if found != SCHEMA:
            message = "the field `schema` is missing" if found is None else f"found `{found}`"
            self._add(message, f"the first line of a project is: schema: {SCHEMA}", "schema")
        for key in self._document.data:
            if key not in _SECTIONS:
                near = nearest_name(key, _SECTIONS)
                hint = f"did you mean `{near}`?  " if near else ""
                self._add("no such field", f"{hint}(fields here: {', '.join(_SECTIONS)})", key)

    def part(self, section: str, group: str, key: str) -> Any:
        """Read a task, teacher or family: a mapping with the name of a plugin under ``key``."""
        example = plugins.names(group)
        written = self._document.data.get(section)
        known = f"(known: {', '.join(example)})"
        if not isinstance(written, dict):
            choice = written if isinstance(written, str) and written in example else _USUAL[section]
            message = "is missing" if written is None else "a mapping of fields is expected here"
            self._add(message, f"for example {section}: {{{key}: {choice}}}  {known}", section)
            return None
        name = written.get(key)
        if not isinstance(name, str):
            message = f"the field `{key}` is missing" if name is None else f"one name of a {key} is expected"
            self._add(message, f"for example {section}: {{{key}: {_USUAL[section]}}}  {known}", section, key)
            return None
        options = {field: value for field, value in written.items() if field != key}
        return self._build(group, name, options, (section,), (section, key))

    def recipe(self) -> list[tuple[str, Any]]:
        """Read the stages, each with the name it is written by."""
        written = self._document.data.get("recipe")
        if written is None:
            return []
        if written == _AUTO or (isinstance(written, dict) and list(written) == [_AUTO]):
            alone: Where = ("recipe",) if isinstance(written, str) else ("recipe", _AUTO)
            options = {} if isinstance(written, str) else written[_AUTO] or {}
            if not isinstance(options, dict):
                self._add("a mapping of options is expected", "for example recipe: {auto: {share: 0.2}}", *alone)
                return []
            return [(_AUTO, self._build("edgekd.stages", _AUTO, options, alone, alone))]
        if not isinstance(written, list):
            self._add(
                "a list of stages is expected", "for example recipe: [{distill: {epochs: 10}}]; or auto", "recipe"
            )
            return []
        stages: list[tuple[str, Any]] = []
        places: list[Where] = []
        for index, step in enumerate(written):
            named = self._named(step, ("recipe", index))
            if named is not None:
                where = ("recipe", index) if isinstance(step, str) else ("recipe", index, named.name)
                if named.name == _AUTO and any(name == _AUTO for name, _ in stages):
                    self._add("`auto` is there already", "one auto is one distill: write the others", *where)
                stages.append((named.name, self._build("edgekd.stages", named.name, named.options, where, where)))
                places.append(where)
        built = [stage for _, stage in stages]
        for index, problem in out_of_order(built) if None not in built else ():  # None: a stage that can't be built
            self._add(problem.message, problem.remedy, *places[index])
        return stages

    def untrained(self, family: str) -> None:
        """Add a problem where no stage would train a student that starts from random weights."""
        message = f"is missing, and the family `{family}` starts from random weights"
        self._add(message, "for example recipe: [{distill: {epochs: 10}}]", "recipe")

    def target(self, instead: str | None) -> Target:
        """Read the target."""
        written = self._document.data.get("target") if instead is None else instead
        try:
            if not isinstance(written, str):
                message = "is missing" if written is None else "a target's name or path is expected"
                raise ConfigurationError.one(message, "see them with: edgekd targets list")
            return load_target(written, self._beside(instead))
        except ConfigurationError as error:
            if instead is None:
                self._problems.extend(placed(error, self._document, ("target",)))
            else:
                self._problems.extend(error.problems)
        return None  # type: ignore[return-value]  # finish() raises before it is used

    def _beside(self, instead: str | None) -> Path | None:
        """Folder that a target's name or path is relative to: a path on the command line to the working folder."""
        return None if instead is not None and search_path.is_path(instead) else self._folder

    def device_folder(self, instead: str | None) -> Path:
        """Return the folder beside which the device is opened."""
        written = self._document.data["target"] if instead is None else instead
        return device_folder(written, self._beside(instead)) or self._folder

    def record(self, section: str, model: type[Any]) -> Any:
        """Read a section that is a plain record."""
        written = self._document.data.get(section)
        try:
            return model.model_validate({} if written is None else plain(written))
        except ValidationError as error:
            self._problems.extend(problems_of(error, self._document, model, (section,)))
        return None

    def search_parts(self, search: SearchOptions | None, family: Any) -> tuple[str, Any]:
        """Check the sampler's name, and build the accuracy estimate."""
        if search is None:
            return "", None
        self._plugin("edgekd.samplers", search.sampler, ("search", "sampler"))
        named = search.accuracy or Named(name="inherit" if getattr(family, "inherits", False) else "short")
        written = self._document.data.get("search") or {}
        where: Where = ("search", "accuracy")
        if isinstance(written.get("accuracy"), dict):
            where = (*where, named.name)
        return named.name, self._build("edgekd.accuracy", named.name, named.options, where, where)

    def _named(self, step: Any, where: Where) -> Named | None:
        try:
            return Named.model_validate(plain(step))
        except ValidationError as error:
            known = ", ".join(plugins.names("edgekd.stages"))
            for problem in problems_of(error, self._document, Named, where):
                self._problems.append(Problem(problem.message, f"(stages: {known})", problem.place))
        return None

    def _build(self, group: str, name: str, options: Mapping[str, Any], where: Where, at_name: Where) -> Any:
        plugin = self._plugin(group, name, at_name)
        if plugin is None:
            return None
        try:
            return plugin.model_validate(plain(options), context={"folder": self._folder})
        except ValidationError as error:
            found = problems_of(error, self._document, plugin, where, self._inner_record)
            self._problems.extend(found)
        except ConfigurationError as error:
            self._problems.extend(placed(error, self._document, where))
        except MissingError as error:
            self._missing.append(error)
        return None

    def _plugin(self, group: str, name: str, where: Where) -> Any:
        try:
            return plugins.load(group, name, self._document.place(where))
        except ConfigurationError as error:
            self._problems.extend(error.problems)
        except MissingError as error:
            self._missing.append(error)
        return None

    def _inner_record(self, where: Where) -> type[BaseModel] | None:
        """Record inside a plugin's options: a number that changes, a loss by its name, a teacher by its kind."""
        node = self._document.data
        for part in where:
            node = node[part]
        if isinstance(node, Mapping) and "from" in node:
            return Ramp
        kind = node.get("kind") if isinstance(node, Mapping) else None
        name = where[-1] if where else None
        for group, named in (("edgekd.teachers", kind), *((group, name) for group in plugins.GROUPS)):
            if isinstance(named, str) and named in plugins.names(group):
                try:
                    plugin = plugins.load(group, named)
                except EdgeKDError:  # reported where it is used
                    return None
                return plugin if isinstance(plugin, type) and issubclass(plugin, BaseModel) else None
        return None

    def _add(self, message: str, remedy: str, *where: str | int) -> None:
        self._problems.append(Problem(message, remedy, self._document.place(where)))


def _replaced(search: SearchOptions, budget: str | None, seed: int | None) -> SearchOptions:
    changes: dict[str, Any] = {}
    if budget is not None:
        try:
            changes["budget"] = Span.parse(budget)
        except ValueError as error:
            raise UsageError(f"--budget: {error}", "for example --budget '10 min'") from None
    if seed is not None:
        changes["seed"] = seed
    try:
        return search.but(**changes)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UsageError(f"{problem['msg'].removeprefix('Value error, ')}: found {problem['input']}") from None


def _dump(record: Any) -> dict[str, Any]:
    if record is None:
        return {}
    dumped: dict[str, Any] = record.model_dump(mode="json")
    return dumped
