"""``edgekd tables list|export|import``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.terminal.output import CommandOutput, command

__all__ = ["tables"]


@command("edgekd tables list", name="list")
def list_(output: CommandOutput) -> None:
    """List the latency tables kept here: of which device, backend and precision."""
    from edgekd.measure.tables import list_tables

    output.answer(list_tables())


@command("edgekd tables export this-computer-1f2e litert.json")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def export(output: CommandOutput, name: str, file: Path, force: bool) -> None:
    """Write a table to a file; its name may be cut short where it is the only one."""
    from edgekd.measure.tables import export_table

    output.answer(export_table(name, file, force))


@command("edgekd tables import pi5.json", name="import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def import_(output: CommandOutput, files: tuple[Path, ...]) -> None:
    """Take the rows of tables' files in."""
    from edgekd.measure.tables import import_tables

    output.answer(import_tables(files))


@click.group()
def tables() -> None:
    """Latency tables: what was measured on a device, for later searches and predictions."""


for _made in (list_, export, import_):
    tables.add_command(_made)
