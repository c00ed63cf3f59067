"""Numbers on the command line, refused in words a person uses."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["SEED", "Whole"]


class Whole(click.IntRange):
    """A whole number from ``min`` on, to ``max`` where there is one."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises BadParameter on anything else."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            end = "on" if self.max is None else f"to {self.max}"
            self.fail(f"{value!r} is not a whole number from {self.min} {end}", param, ctx)


SEED = Whole(0, 2**32 - 1)
