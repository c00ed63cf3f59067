"""Numbers on the command line, with errors in plain words."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["SEED", "Whole"]


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


SEED = Whole(0, 2**32 - 1)
