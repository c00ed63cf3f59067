"""Names a shell can complete: targets, devices, runs, losses, backends."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["complete_backend", "complete_device", "complete_loss", "complete_run", "complete_target"]


def complete_target(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Targets known here."""
    from edgekd.targets.catalogue import target_names

    return [name for name in target_names() if name.startswith(incomplete)]


def complete_device(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Devices known here."""
    from edgekd.targets.catalogue import device_names

    return [name for name in device_names() if name.startswith(incomplete)]


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Run folders below ./runs."""
    return [str(path.parent) for path in Path("runs").glob("*/run.json") if str(path).startswith(incomplete)]


def complete_loss(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Losses a recipe can name."""
    from edgekd import plugins

    return [name for name in plugins.names("edgekd.losses") if name.startswith(incomplete)]


def complete_backend(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Backends that edgekd drives."""
    from edgekd.artefacts import BACKENDS

    return [name for name in BACKENDS if name.startswith(incomplete)]
