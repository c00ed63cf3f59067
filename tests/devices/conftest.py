"""Locks and the agent's file go into a cache of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgekd.devices.zipapp import agent_path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        agent_path.cache_clear()
        yield
    agent_path.cache_clear()
