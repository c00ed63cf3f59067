"""Numbers on the command line, with errors in plain words."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["SEED", "Positive", "Whole"]


class Whole(click.IntRange):
    """Whole number of at least ``min``, and at most ``max`` if given."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the number. Raises BadParameter on anything else."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            end = "on" if self.max is None else f"to {self.max}"
            self.fail(f"{value!r} is not a whole number from {self.min} {end}", param, ctx)


class Positive(click.ParamType[float]):
    """Finite number above 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number. Raises BadParameter on anything else."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0", param, ctx)
        return number


SEED = Whole(0, 2**32 - 1)
