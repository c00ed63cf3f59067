"""Quantities with units, as people write them: ``33 ms``, ``64 MiB``, ``60 mJ``.

Each quantity is a float in its base unit (seconds, bytes, hertz, joules, watts) and keeps nothing else. A bare number
is refused with the missing unit named.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    "Bandwidth",
    "Duration",
    "Energy",
    "Frequency",
    "OfOwn",
    "Points",
    "Power",
    "Quantity",
    "Rate",
    "Size",
    "Span",
    "format_bytes",
    "format_s",
    "format_small",
    "format_us",
]

_TEXT = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([^\s0-9].*?)\s*$")
_BARE = re.compile(r"^\s*[-+]?[0-9.eE+-]+\s*$")


class Quantity(float):
    """Non-negative float in a base unit. Read with :meth:`parse`, shown with ``str``."""

    units: ClassVar[dict[str, float]] = {}
    likely: ClassVar[
        tuple[str, ...]
    ] = ()  # units to suggest where none was written; the first ones of `units` if empty
    example: ClassVar[str] = ""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse ``"33 ms"``. Raises ValueError that lists the units."""
        if isinstance(text, cls):
            return text
        choices = ", ".join(cls.units)
        if not isinstance(text, str) or _BARE.match(text):
            shown = str(text).strip()
            raise ValueError(f"{shown} has no unit. Write {cls._suggest(shown)}")
        match = _TEXT.match(text)
        if match is None:
            raise ValueError(f"`{text}` is not a quantity. Write for example {cls.example}")
        unit = match[2]
        if unit not in cls.units:
            raise ValueError(f"`{text}`: no such unit `{unit}` (known: {choices})")
        value = float(match[1]) * cls.units[unit]
        if not math.isfinite(value):
            raise ValueError(f"`{text}` is too large")
        return cls(value)

    @classmethod
    def _suggest(cls, shown: str) -> str:
        units = cls.likely or tuple(cls.units)[:3]
        if not _BARE.match(shown):
            return f"for example {cls.example}"
        return (
            ", ".join(f"{shown} {unit}" for unit in units[:-1]) + f" or {shown} {units[-1]}"
            if len(units) > 1
            else f"{shown} {units[0]}"
        )

    def __str__(self) -> str:
        """Format in the largest unit in which the number is at least 1, with up to six significant digits."""
        fitting = [(size, unit) for unit, size in self.units.items() if float(self) >= size]
        size, unit = max(fitting) if fitting else min((size, unit) for unit, size in self.units.items())
        return f"{float(self) / size:.6g} {unit}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object) -> Quantity:
            try:
                return cls.parse(value)
            except ValueError as error:
                raise PydanticCustomError("quantity", "{reason}", {"reason": str(error)}) from None

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(lambda v: v.exact())
        )

    def exact(self) -> str:
        """Format so that it reads back as the same number, in the base unit where a shorter text would round."""
        text = str(self)
        if float(type(self).parse(text)) == float(self):
            return text
        base = next(unit for unit, size in self.units.items() if size == 1.0)
        return f"{float(self)!r} {base}"


class Duration(Quantity):
    """Seconds."""

    units = {"ms": 1e-3, "us": 1e-6, "s": 1.0, "ns": 1e-9, "min": 60.0, "h": 3600.0}
    example = "33 ms"

    @property
    def us(self) -> float:
        """Value in microseconds."""
        return float(self) * 1e6


class Span(Duration):
    """Seconds of work: a search's time."""

    likely = ("s", "min", "h")
    example = "30 min"


class Size(Quantity):
    """Bytes."""

    units = {
        "MiB": 1024.0**2,
        "KiB": 1024.0,
        "B": 1.0,
        "GiB": 1024.0**3,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
    }
    example = "64 MiB"

    def __str__(self) -> str:
        return format_bytes(float(self)) if float(self) % 1024 == 0 else super().__str__()


class Rate(Quantity):
    """Events a second."""

    units = {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}
    example = "30/s"

    def __str__(self) -> str:
        return super().__str__().replace(" ", "")


class Frequency(Quantity):
    """Hertz."""

    units = {"GHz": 1e9, "MHz": 1e6, "kHz": 1e3, "Hz": 1.0}
    example = "2.4 GHz"


class Bandwidth(Quantity):
    """Bytes a second."""

    units = {"GB/s": 1e9, "MB/s": 1e6, "GiB/s": 1024.0**3, "MiB/s": 1024.0**2, "B/s": 1.0}
    example = "17 GB/s"


class Energy(Quantity):
    """Joules."""

    units = {"mJ": 1e-3, "uJ": 1e-6, "J": 1.0}
    example = "60 mJ"


class Power(Quantity):
    """Watts."""

    units = {"mW": 1e-3, "W": 1.0, "uW": 1e-6}
    example = "500 mW"


class OfOwn(Quantity):
    """Share of the figure of a user's own model: `60 % of own`."""

    units = {"x own": 1.0, "% of own": 0.01}
    example = "60 % of own"


class Points(Quantity):
    """Percentage points of a score."""

    units = {"%": 0.01, "points": 0.01, "of 1": 1.0}
    example = "2 %"


def format_small(value: float, unit: str) -> str:
    """Format joules or watts: ``3.2 mJ``, ``41 uJ``, ``5.1 W``."""
    for size, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "u")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value * 1e9:.3g} n{unit}" if value else f"0 {unit}"


def format_us(microseconds: float) -> str:
    """Format a latency: ``61 us``, ``3.21 ms``, ``1.2 s``."""
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} us" if microseconds < 100 else f"{microseconds:.0f} us"


def format_s(seconds: float) -> str:
    """Format a time: ``0.4 s``, ``12 s``, ``25 min``, ``2.5 h``."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.0f} s"


def format_bytes(size_bytes: float) -> str:
    """Format a size: ``18.3 KiB``, ``4 MiB``."""
    for size, unit in ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.3g} {unit}" if size_bytes / size < 100 else f"{size_bytes / size:.0f} {unit}"
    return f"{size_bytes:.0f} B"
