"""Published facts of a device, each with its source. An unpublished fact is absent, never guessed.

Facts help a person choose; no verdict rests on them. The measured device is described by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, PositiveInt, ValidationError

from edgekd.documents import problems_of
from edgekd.errors import ConfigurationError
from edgekd.extends import DEVICES, resolve
from edgekd.records import Filed, Record
from edgekd.units import Bandwidth, Frequency, Size

__all__ = ["DeviceFacts", "Fact", "read_facts"]

ValueT = TypeVar("ValueT")


class Fact(Record, Generic[ValueT]):
    """Value, with the page it was read on."""

    value: ValueT
    source: Annotated[str, Field(pattern=r"^https://\S+$")]


class CoreCluster(Record):
    """Cores of one kind."""

    kind: str
    count: PositiveInt
    clock: Frequency | None = None


class DeviceFacts(Filed):
    """Board, phone, or this computer. ``connection`` names a device plugin and its options."""

    schema_: Literal["edgekd.device/1"] = Field(alias="schema")
    title: str
    connection: Mapping[str, Any] | None = None
    soc: Fact[str] | None = None
    architecture: Fact[str] | None = None  # as platform.machine() returns there
    cores: Fact[tuple[CoreCluster, ...]] | None = None
    extensions: Fact[tuple[str, ...]] | None = None  # those relevant here, as named in /proc/cpuinfo
    l2_per_core: Fact[Size] | None = None
    l3: Fact[Size] | None = None
    memory: Fact[tuple[Size, ...]] | None = None  # the sizes it is sold with
    memory_kind: Fact[str] | None = None
    memory_bandwidth: Fact[Bandwidth] | None = None


def read_facts(path: Path) -> DeviceFacts:
    """Read ``devices/NAME.yaml`` and what it extends. Raises ConfigurationError."""
    resolved = resolve(path, DEVICES)
    try:
        return DeviceFacts.model_validate({"schema": DEVICES.schema, **resolved.data})
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, resolved, DeviceFacts)) from None
