"""Shared by all tests: shipped contract suites explain their failures, and nothing leaks into a person's folders."""

from __future__ import annotations

from pathlib import Path

import pytest

for suite in ("accuracy", "device", "exporter", "family", "loss", "stage", "task", "teacher"):
    pytest.register_assert_rewrite(f"edgekd.testing.contracts.{suite}")


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder shared by the session's tests."""
    return tmp_path_factory.mktemp("edgekd-cache")
