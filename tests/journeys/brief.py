"""``edgekd`` as a command that measures briefly: beside other tests, longer measurements make no better figures.

Started as ``python brief.py ARGUMENTS``, in the place of ``edgekd ARGUMENTS``.
"""

from __future__ import annotations

import sys
from pathlib import Path

WARMUP_MS, ROUND_MS, PROCESSES = 5.0, 3.0, 3


def measure_briefly() -> None:
    """At most three processes a model, rounds as many as planned and short; no batch is repeated to find it calm."""
    from edgekd.devices import session
    from edgekd.measure import contention, sequential
    from edgekd.search import plan

    contention._REPEATS = sequential._REPEATS = 0  # repeating is tested on fakes
    made = plan.MeasurePlan
    plan.MeasurePlan = lambda **options: made(**{**options, "processes": min(options["processes"], PROCESSES)})
    whole = session._plan
    session._plan = lambda asked: {**whole(asked), "warmup_ms": WARMUP_MS, "round_ms": ROUND_MS}


if __name__ == "__main__":
    sys.argv[0], sys.path[0] = "edgekd", str(Path.cwd())
    measure_briefly()
    from edgekd.cli.main import main

    sys.exit(main())
