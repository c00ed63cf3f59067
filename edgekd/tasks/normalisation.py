"""Options ``mean`` and ``std`` in raw units, of tasks and teachers: one value, or one for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from edgekd.errors import ConfigurationError

__all__ = ["Values", "check_channels", "check_pair", "require_varied"]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Values = Annotated[tuple[float, ...], BeforeValidator(_several)]
"""One number, or one for each channel."""


def check_pair(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Raise ValueError if mean or std is given without the other, or a deviation is not positive."""
    if (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both, or neither")
    if std is not None and min(std, default=0.0) <= 0:
        raise ValueError("std must be above zero, in raw units (for 0..255 pixels 58.4, not 0.229)")


def check_channels(what: str, mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Raise ConfigurationError if there is neither one value nor one for each channel."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigurationError.one(
                f"{what}: `{name}` has {len(values)} values, and the samples have {channels} channels",
                "give one value, or one a channel",
            )


def require_varied(what: str, std: Sequence[float]) -> None:
    """Raise ConfigurationError if the samples' own deviation, overall or of a channel, is zero."""
    if min(std) <= 0:
        where = f"of channel {list(std).index(min(std))} " if len(std) > 1 else ""
        raise ConfigurationError.one(
            f"{what}: all values {where}are the same",
            "check the data, or give the mean and std the model had",
        )
