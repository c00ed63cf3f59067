"""A copy, timed on this computer."""

from __future__ import annotations

import subprocess

import pytest

from edgekd.errors import Unstable
from edgekd.evidence import EvidenceKind
from edgekd.measure import bandwidth


def test_it_is_measured_in_fresh_processes():
    figure = bandwidth.measure_bandwidth(256 * 1024, "f" * 64)
    assert figure.kind is EvidenceKind.MEASURED
    assert figure.subject == "f" * 64
    assert 1e8 < figure.lower <= figure.value <= figure.upper < 1e13  # bytes a second
    assert "256 KiB" in figure.method


def test_no_process_is_no_figure(monkeypatch):
    def fails(*_args, **_options):
        raise subprocess.TimeoutExpired("copy", 1.0)

    monkeypatch.setattr(bandwidth.subprocess, "run", fails)
    with pytest.raises(Unstable, match="no process"):
        bandwidth.measure_bandwidth(4096, "f" * 64)
