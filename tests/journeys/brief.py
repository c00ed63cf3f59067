"""``edgekd`` as a command that measures briefly: beside other tests, longer measurements make no better figures.

Started as ``python brief.py ARGUMENTS``, in the place of ``edgekd ARGUMENTS``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

WARMUP_MS, ROUND_MS, PROCESSES = 5.0, 3.0, 3


def measure_briefly(put: Callable[[object, str, object], object] = setattr) -> None:
    """At most three processes a model, rounds as many as planned and short; no batch is repeated to find it calm.

    ``put`` sets an attribute: pytest's `monkeypatch.setattr` where it has to be undone.
    """
    from edgekd.devices import session
    from edgekd.measure import contention, sequential
    from edgekd.search import plan

    for module in (contention, sequential):
        put(module, "_REPEATS", 0)  # repeating is tested on fakes
    made, whole = plan.MeasurePlan, session._plan
    put(plan, "MeasurePlan", lambda **asked: made(**{**asked, "processes": min(asked["processes"], PROCESSES)}))
    put(session, "_plan", lambda asked: {**whole(asked), "warmup_ms": WARMUP_MS, "round_ms": ROUND_MS})


if __name__ == "__main__":
    sys.argv[0], sys.path[0] = "edgekd", str(Path.cwd())
    measure_briefly()
    from edgekd.cli.main import main

    sys.exit(main())
