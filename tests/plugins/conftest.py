"""The example is a package of its own: its tests run where it is installed, not with ours."""

from __future__ import annotations

collect_ignore = ["edgekd_example"]
