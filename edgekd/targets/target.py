"""Target: the device, the backends allowed on it, the load, and the budgets a candidate must meet.

The records mirror ``targets/*.yaml`` field by field; `Target.limits` flattens the budgets for filters and verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgekd.artefacts import Backend
from edgekd.errors import printable
from edgekd.ir.backends import BACKENDS, backend_hint
from edgekd.records import Extended, Record
from edgekd.units import Duration, Energy, OfOwn, Points, Power, Quantity, Rate, Size

__all__ = ["Budgets", "Limit", "Target", "Terms"]

Confidence = Annotated[float, Field(gt=0.5, lt=1.0)]


def _or_of_own(kind: type[Quantity]) -> Callable[[object], Quantity]:
    """Validator that reads a quantity, or a share of the user's own model's figure."""

    def read(value: object) -> Quantity:
        relative = isinstance(value, OfOwn) or (isinstance(value, str) and value.rstrip().endswith("own"))
        try:
            return OfOwn.parse(value) if relative else kind.parse(value)
        except ValueError as error:
            raise PydanticCustomError("quantity", "{reason}", {"reason": str(error)}) from None

    return read


OwnDuration = Annotated[Duration | OfOwn, BeforeValidator(_or_of_own(Duration))]
OwnSize = Annotated[Size | OfOwn, BeforeValidator(_or_of_own(Size))]


class LatencyBudget(Extended):
    """Limits on the time of one call, as the application sees it.

    ``p5``, the 5th percentile, is the speed of an undisturbed machine: it is reproducible on a shared machine too.
    """

    added: ClassVar[frozenset[str]] = frozenset({"p5"})
    usual: ClassVar[str] = "p95"
    p50: OwnDuration | None = None
    p95: OwnDuration | None = None
    p99: OwnDuration | None = None
    mean: OwnDuration | None = None
    first: Duration | None = None
    load: Duration | None = None
    p5: OwnDuration | None = None
    confidence: Confidence = 0.95
    report: bool = False


class MemoryBudget(Record):
    """Limits on memory, two separate figures: bytes that the model adds, and bytes of the whole process."""

    usual: ClassVar[str] = "model"
    model: Size | None = None
    process: Size | None = None
    confidence: Confidence = 0.95
    report: bool = False


class SizeBudget(Record):
    """Limits on bytes of the model file: as it is loaded, and compressed as it is sent."""

    usual: ClassVar[str] = "file"
    file: OwnSize | None = None
    download: Size | None = None
    report: bool = False


class EnergyBudget(Record):
    """Limits on energy. ``modelled: true`` accepts a figure computed from a power that a person stated."""

    usual: ClassVar[str] = "per_inference"
    per_inference: Energy | None = None
    confidence: Confidence = 0.95
    modelled: bool = False
    report: bool = False


class PowerBudget(Record):
    """``modelled``: see EnergyBudget."""

    usual: ClassVar[str] = "average"
    average: Power | None = None
    confidence: Confidence = 0.95
    modelled: bool = False
    report: bool = False


class Budgets(Record):
    """All optional; there are no default budgets. ``report: true`` makes one informative only."""

    latency: LatencyBudget | None = None
    memory: MemoryBudget | None = None
    size: SizeBudget | None = None
    energy: EnergyBudget | None = None
    power: PowerBudget | None = None
    throughput: Rate | None = None


class LoadPattern(Record):
    """Load: back to back (closed), or a call every ``1 / rate`` seconds (periodic)."""

    pattern: Literal["closed", "periodic"] = "closed"
    rate: Rate | None = None

    @model_validator(mode="after")
    def _rate_where_periodic(self) -> LoadPattern:
        if (self.pattern == "periodic") != (self.rate is not None):
            raise ValueError("a periodic load needs `rate` (for example 30/s), and a closed one has none")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("the rate of a periodic load must be above 0 /s")
        return self


class AccuracyFloor(Record):
    """Lowest acceptable score in the task's metric, or the largest drop below the user's own model."""

    usual: ClassVar[str] = "floor"
    floor: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    drop: Points | None = None
    report: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> AccuracyFloor:
        if (self.floor is None) == (self.drop is None):
            raise ValueError("an accuracy has `floor` (for example 0.90) or `drop` (2 %, below one's own model's)")
        return self

    @model_serializer(mode="wrap")
    def _as_it_always_was(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize without unset fields."""
        return {name: value for name, value in whole(self).items() if value is not None}


class Limit(Record):
    """Limit: one budget, flattened. ``bound`` is in ``unit``: us, B, J, W, /s or the metric's own."""

    metric: str  # latency.p95, memory.model, size.file, accuracy, ...
    bound: float
    unit: str
    upper: bool = True  # the figure must not exceed the bound; False: must not fall below it
    confidence: float = 0.95
    hard: bool = True
    modelled: bool = False  # whether a modelled figure counts
    written: str  # as a person wrote it

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.upper else '>='} {self.written}"


def _known(backend: Backend) -> Backend:
    if str(backend) not in BACKENDS:
        reason = f"no backend `{printable(str(backend))}`. {backend_hint(str(backend))}(known: {', '.join(BACKENDS)})"
        raise PydanticCustomError("edgekd_backend", "{reason}", {"reason": reason})
    return backend


class Terms(Record):
    """Content of a target file. ``device`` is a name in ``devices/`` or ``this-computer``."""

    device: str
    backends: Annotated[tuple[Annotated[Backend, AfterValidator(_known)], ...], Field(min_length=1)]
    threads: PositiveInt = 1
    load: LoadPattern = LoadPattern()
    budgets: Budgets = Budgets()
    accuracy: AccuracyFloor | None = None
    delegation: Literal["any", "full"] = "any"
    fully_integer: bool = False

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Every budget, the accuracy floor, full delegation and integers only, as one flat list.

        Without those of `relative`: their bounds are known once the user's own model is measured.
        """
        found: list[Limit] = []
        for group in ("latency", "memory", "size", "energy", "power"):
            budget = getattr(self.budgets, group)
            for field in type(budget).model_fields if budget is not None else ():
                quantity = getattr(budget, field)
                if isinstance(quantity, Quantity) and not isinstance(quantity, OfOwn):
                    bound, unit = (
                        (quantity.us, "us") if isinstance(quantity, Duration) else (float(quantity), _UNITS[group])
                    )
                    found.append(
                        Limit(
                            metric=f"{group}.{field}",
                            bound=bound,
                            unit=unit,
                            confidence=getattr(budget, "confidence", 0.95),
                            hard=not budget.report,
                            modelled=getattr(budget, "modelled", False),
                            written=str(quantity),
                        )
                    )
        if self.budgets.throughput is not None:
            rate = self.budgets.throughput
            found.append(Limit(metric="throughput", bound=float(rate), unit="/s", upper=False, written=str(rate)))
        if self.accuracy is not None and self.accuracy.floor is not None:
            floor = self.accuracy.floor
            hard = not self.accuracy.report
            found.append(Limit(metric="accuracy", bound=floor, unit="", upper=False, hard=hard, written=f"{floor:g}"))
        if self.delegation == "full":
            found.append(Limit(metric="delegation", bound=1.0, unit="", upper=False, written="full"))
        if self.fully_integer:
            found.append(Limit(metric="operators.float", bound=0.0, unit="", written="0"))
        return tuple(found)

    @property
    def relative(self) -> tuple[tuple[str, Quantity], ...]:
        """Relative limits: metrics, with the share of the user's own model's figure or the points below its score."""
        found: list[tuple[str, Quantity]] = []
        for group in ("latency", "size"):
            budget = getattr(self.budgets, group)
            for field in type(budget).model_fields if budget is not None else ():
                quantity = getattr(budget, field)
                if isinstance(quantity, OfOwn):
                    found.append((f"{group}.{field}", quantity))
        if self.accuracy is not None and self.accuracy.drop is not None:
            found.append(("accuracy", self.accuracy.drop))
        return tuple(found)

    @property
    def written(self) -> tuple[str, ...]:
        """Every limit as text, the relative ones too."""
        of_own = [
            f"accuracy >= own - {quantity}" if metric == "accuracy" else f"{metric} <= {quantity}"
            for metric, quantity in self.relative
        ]
        return (*map(str, self.limits), *of_own)


class Target(Terms):
    """Contract: the terms, and the name of the file that holds them."""

    name: str


_UNITS = {"memory": "B", "size": "B", "energy": "J", "power": "W"}
