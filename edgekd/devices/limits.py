"""Artificial limits of a device, as its file states them: the same machine, made smaller."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PositiveFloat, PositiveInt

from edgekd.records import Record
from edgekd.units import Size

__all__ = ["Limits"]

_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")


def _share(value: Any) -> Any:
    """``50 %`` as 0.5; a bare number is an error that names the unit."""
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value.strip())):
        return float(found.group(1)) / 100
    if isinstance(value, float):  # as it is kept
        return value
    raise ValueError(f"expected a share of one core's time such as `50 %`, found {value!r}")


class Limits(Record):
    """What a measured process has. Figures taken under any of them are `emulated`, never `measured`.

    ``cores`` binds it to so many; ``cpu`` is the share of one core's time it gets; ``memory`` is what it may take in
    all. The agent says in the fingerprint by what each is enforced, and refuses what it can't enforce.
    """

    cores: PositiveInt | None = None
    cpu: Annotated[PositiveFloat, BeforeValidator(_share)] | None = None
    memory: Size | None = None

    def told(self) -> str:
        """As the agent reads it."""
        return json.dumps(
            {"cores": self.cores or 0, "cpu": self.cpu or 0.0, "memory_bytes": int(self.memory or 0)},
            separators=(",", ":"),
        )
