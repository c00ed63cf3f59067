"""The view that docs/plugins.md shows keeps the contract."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgekd.testing.contracts.augmentation import AugmentationContract

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def shown():
    (text,) = re.findall(r"## A view\n.*?```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = ModuleType("edgekd_example_channel_drop")
    sys.modules[module.__name__] = module  # annotations are looked up there
    exec(compile(text, str(PAGE), "exec"), module.__dict__)
    yield module.ChannelDrop
    del sys.modules[module.__name__]


class TestShownAugmentation(AugmentationContract):
    @pytest.fixture
    def options(self, shown):
        return shown(probability=0.6)

    @pytest.fixture
    def other(self, shown):
        return shown(probability=0.7)
