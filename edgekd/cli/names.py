"""Shell completion of names: targets, devices, runs, losses, backends.

Where a path is allowed too, the shell completes paths as well: it gets the typed text as a path to continue.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

__all__ = ["complete_backend", "complete_device", "complete_loss", "complete_run", "complete_target"]


def complete_target(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Targets known here, and paths."""
    from edgekd.targets.catalogue import target_names

    return _and_paths(target_names(), incomplete)


def complete_device(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Devices known here, and paths."""
    from edgekd.targets.catalogue import device_names

    return _and_paths(device_names(), incomplete)


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders of the runs that `edgekd runs` lists, and paths."""
    from edgekd.store.listing import run_folders

    return _and_paths(map(str, run_folders(Path("runs"))), incomplete)


def complete_loss(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Losses a recipe can name."""
    from edgekd import plugins

    return [name for name in plugins.names("edgekd.losses") if name.startswith(incomplete)]


def complete_backend(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Backends that edgekd drives."""
    from edgekd.ir.backends import BACKENDS

    return [name for name in BACKENDS if name.startswith(incomplete)]


def _and_paths(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    known = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [*known, CompletionItem(incomplete, type="file")]
