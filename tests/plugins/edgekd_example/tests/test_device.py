"""The shipped suite on the device, which starts real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edgekd_example.device import PinnedDevice

from edgekd.testing.contracts.device import DeviceContract


class TestPinnedDevice(DeviceContract):
    @pytest.fixture
    def make_device(self, tmp_path: Path) -> Callable[[], PinnedDevice]:
        return lambda: PinnedDevice(name="pinned", lock=f"test-{tmp_path}".replace("/", "-"))
