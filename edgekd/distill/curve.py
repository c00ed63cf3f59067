"""Learning curve ``curve.jsonl``: one `CurvePoint` on each line, for live observers. A torn last line is ignored.

The file is derived data: the checkpoint has the curve too, and a resumed training rewrites the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from edgekd.store.atomic import write_bytes
from edgekd.store.records import CurvePoint

__all__ = ["CURVE_FILE", "last_score", "read_curve", "write_curve"]

CURVE_FILE = "curve.jsonl"


def write_curve(folder: Path, points: Sequence[CurvePoint]) -> None:
    """Write the whole curve. Raises OSError."""
    write_bytes(folder / CURVE_FILE, "".join(f"{point.model_dump_json()}\n" for point in points).encode())


def read_curve(folder: Path) -> tuple[CurvePoint, ...]:
    """Read the points in a stage's folder; empty if it has no curve.

    Raises ValueError on damage before the last line.
    """
    path = folder / CURVE_FILE
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    points = []
    for number, line in enumerate(lines):
        try:
            points.append(CurvePoint.model_validate_json(line))
        except ValidationError:
            if number != len(lines) - 1:
                raise
    return tuple(points)


def last_score(points: Sequence[CurvePoint]) -> str:
    """Format the last validation score as part of a note; empty if there was none."""
    scored = next((point.validation for point in reversed(points) if point.validation is not None), None)
    return "" if scored is None else f", validation {scored:.1%}"
