"""The clock that only moves when advanced."""

from __future__ import annotations

import pytest

from edgekd.testing.fakes import FakeClock


def test_it_moves_forwards_only():
    clock = FakeClock(10.0)
    clock.sleep(5.0)
    clock.advance(0.5)
    assert clock() == 15.5
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1.0)
