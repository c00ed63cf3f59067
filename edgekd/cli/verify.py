"""``edgekd verify BUNDLE``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.names import complete_device
from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["verify"]


@command("edgekd verify runs/2026-11-24-digits/bundle")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", shell_complete=complete_device, help="Where to measure.", show_default="this-computer")
@click.option("--digest", help="Expected digest of the bundle, as edgekd export printed it.")
def verify(output: CommandOutput, bundle: Path, device: str | None, digest: str | None) -> None:
    """Check a bundle: every file's hash, its expected outputs, and its budgets, measured again on the device.

    Runs no code of the bundle: a stranger's bundle is safe to verify. A bundle forged throughout is detected only with
    --digest.
    """
    from edgekd import api

    with output.watching() as events:
        answer = api.verify(bundle, device=device, digest=digest, events=events)
    output.answer(answer)
