"""Fakes that record real results: a clock that only moves when advanced, and a device on that clock."""

from __future__ import annotations

from edgekd.testing.fakes.clock import FakeClock
from edgekd.testing.fakes.device import FakeDevice, Script, TimingNoise, fake_fingerprint

__all__ = ["FakeClock", "FakeDevice", "Script", "TimingNoise", "fake_fingerprint"]
