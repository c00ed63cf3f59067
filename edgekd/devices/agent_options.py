"""Options of a device file that the agent obeys, on any kind of device: artificial limits, and the source of power."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from edgekd.devices._protocol import PowerModel
from edgekd.records import Record
from edgekd.units import Power, Size

__all__ = ["AgentOptions", "CoolingOptions", "LimitOptions", "MeterOptions", "PathHere"]

_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_NO_LIMITS = {"cores": 0, "cpu": 0.0, "memory_bytes": 0}


def _share(value: Any) -> Any:
    """``50 %`` as 0.5; a bare number is an error that names the unit."""
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value.strip())):
        return float(found.group(1)) / 100
    if isinstance(value, float):  # as it is kept
        return value
    raise ValueError(f"expected a share of one core's time such as `50 %`, found {value!r}")


def _without_controls(path: Path) -> Path:
    if re.search(r"[\x00-\x1f]", str(path)):
        raise ValueError("expected a path without control characters")
    return path


PathHere = Annotated[Path, AfterValidator(_without_controls)]
"""A path of this computer."""


class LimitOptions(Record):
    """Limits of a measured process. Figures taken under any of them are `emulated`, never `measured`.

    ``cores`` binds it to so many; ``cpu`` is the share of one core's time it gets; ``memory`` is what it may take in
    all. The agent says in the fingerprint by what each is enforced, and refuses what it can't enforce.
    """

    cores: PositiveInt | None = None
    cpu: Annotated[PositiveFloat, BeforeValidator(_share)] | None = None
    memory: Size | None = None


class MeterOptions(Record):
    """Source of a device's power. ``first``: the first of rapl, hwmon and pmic that answers.

    ``rapl``: the processor packages' counters. ``hwmon``: an INA sensor, ``path`` its name where there are several.
    ``pmic``: a Raspberry Pi 5's own. ``battery``: a phone's, ``scale`` in amperes a unit of its ``current_now``.
    ``lines``: an external meter whose lines ``timestamp watts`` (seconds of the device's Unix clock) come at ``path``
    there. ``constant``: no meter, but what it draws ``busy`` and ``idle`` by somebody's word: energy is `modelled`.
    ``root`` is where the device's /sys is, if not at /.
    """

    kind: Literal["first", "none", "rapl", "hwmon", "pmic", "battery", "lines", "constant"] = "first"
    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f]*$")] = ""
    root: Annotated[str, Field(pattern=r"^/[^\x00-\x1f]*$")] = "/"
    scale: PositiveFloat | None = None
    busy: Power | None = None
    idle: Power | None = None

    @model_validator(mode="after")
    def _whole(self) -> MeterOptions:
        if self.kind == "lines" and not self.path:
            raise ValueError("an external meter needs the `path` its lines come at")
        if self.kind == "battery" and self.scale is None:
            raise ValueError("phones differ: give `scale`, amperes a unit of current_now (1e-6 by the kernel's rule)")
        if (self.kind == "constant") != (self.busy is not None and self.idle is not None):
            raise ValueError("`busy` and `idle` belong to `kind: constant`, and it needs both")
        if self.busy is not None and self.idle is not None and self.busy <= self.idle:
            raise ValueError("`busy` must be above `idle`")
        return self


class CoolingOptions(Record):
    """Before each set of fresh processes the device waits until its processor is as cool, ``patience_s`` at most."""

    below_c: Annotated[float, Field(gt=0, le=150)]
    patience_s: Annotated[float, Field(gt=0, le=3600)] = 300.0


class AgentOptions(Record):
    """The base of every kind of device that is reached through the agent.

    ``on_cores`` binds all work there to its ``fast`` cores, its ``slow`` ones, or some by number.
    """

    on_cores: Literal["fast", "slow"] | tuple[NonNegativeInt, ...] | None = None
    cooling: CoolingOptions | None = None
    limits: LimitOptions | None = None
    meter: MeterOptions | None = None

    @property
    def power_model(self) -> PowerModel | None:
        """The person's word, where that is all there is."""
        if self.meter is None or self.meter.busy is None or self.meter.idle is None:
            return None
        return PowerModel(busy_w=float(self.meter.busy), idle_w=float(self.meter.idle))

    @property
    def cooling_s(self) -> float:
        """The longest wait until it is cool, before a set of processes."""
        return self.cooling.patience_s if self.cooling else 0.0

    def encoded(self) -> str:
        """Encode the options as the agent reads them."""
        limits, meter = self.limits, self.meter or MeterOptions()
        chosen = dict(_NO_LIMITS)
        if limits is not None:
            chosen = {
                "cores": limits.cores or 0,
                "cpu": limits.cpu or 0.0,
                "memory_bytes": int(limits.memory or 0),
            }
        kind = "none" if meter.kind == "constant" else meter.kind
        read = {"kind": kind, "path": meter.path, "root": meter.root, "scale": meter.scale or 1.0}
        cores = self.on_cores if isinstance(self.on_cores, str) else ",".join(map(str, self.on_cores or ()))
        cool = [self.cooling.below_c, self.cooling.patience_s] if self.cooling else []
        return json.dumps({"limits": chosen, "meter": read, "on_cores": cores, "cooling": cool}, separators=(",", ":"))
