"""Starts the agent, or one of its workers.

``agent.pyz [serve LOCK TOKEN OPTIONS]`` ``agent.pyz worker PARENT_PID``, or ``agent.pyz burn PARENT_PID``.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Exit status of the chosen process."""
    if sys.argv[1:2] == ["worker"]:
        from edgekd.agent import worker

        return worker.main(int(sys.argv[2]))
    if sys.argv[1:2] == ["burn"]:
        from edgekd.agent import busy

        return busy.burn(int(sys.argv[2]))
    from edgekd.agent import serve

    return serve.main(*sys.argv[2:5])


if __name__ == "__main__":
    sys.exit(main())
