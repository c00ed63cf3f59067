"""``edgekd verify BUNDLE``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.output import Output, command

__all__ = ["verify"]


@command("edgekd verify runs/2026-11-24-digits/bundle")
@click.argument("bundle", type=click.Path(path_type=Path))
def verify(output: Output, bundle: Path) -> None:
    """Check a bundle: every file's hash, the answers it must give, and its budgets, measured again on the device.

    Runs no code of the bundle: a stranger's bundle is safe to verify.
    """
    from edgekd import api

    with output.watching() as events:
        answer = api.verify(bundle, events=events)
    output.answer(answer)
