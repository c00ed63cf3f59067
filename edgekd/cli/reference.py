"""Reference page of the command line, generated from the program: ``python -m edgekd.cli.reference > docs/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from edgekd.cli.main import COMMANDS, group

__all__ = ["reference"]

_HEAD = """\
# The command line

Made by `python -m edgekd.cli.reference`; a test fails when it is stale.

stdout is the answer, stderr is progress. Exit codes: 0 done, 1 a bug of edgekd (of `bench --against`: a model is slower
than before, or no longer runs), 2 usage, 3 a wrong file or name, 4 something needed is missing or out of reach, 5 no
candidate met the budget, 6 too unstable to decide, 7 parity failed, 130 interrupted.

## Completion in a shell

Commands, options, and the names of targets, devices, runs, losses and backends complete with the tab key, once
the shell has one of these lines in the file named beside it:

| line | file |
|---|---|
| `eval "$(_EDGEKD_COMPLETE=bash_source edgekd)"` | `~/.bashrc` |
| `eval "$(_EDGEKD_COMPLETE=zsh_source edgekd)"` | `~/.zshrc` |
| `_EDGEKD_COMPLETE=fish_source edgekd \\| source` | `~/.config/fish/config.fish` |
"""


def reference() -> str:
    """Whole page as Markdown."""
    parts = [_HEAD]
    with click.Context(group, info_name="edgekd", **group.context_settings) as root:
        for name in COMMANDS:
            command = group.get_command(root, name)
            if command is not None:
                parts += _pages(command, f"edgekd {name}", name, root)
    return "\n".join(parts)


def _pages(command: click.Command, title: str, name: str, parent: click.Context) -> Iterator[str]:
    with click.Context(command, info_name=name, parent=parent) as context:
        yield f"## {title}\n\n```\n{command.get_help(context)}\n```\n"
        if isinstance(command, click.Group):
            for inner in sorted(command.commands):
                yield from _pages(command.commands[inner], f"{title} {inner}", inner, context)


if __name__ == "__main__":
    sys.stdout.write(reference())
