"""A small model in a folder of its own, and images for it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

SOURCE = """\
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build()

    def forward(self, a, b):
        return self.inner(a + b)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 3)

    def forward(self, ids):
        return self.table(ids).mean(1)


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )


def two():
    return Two()


def tokens():
    return Tokens()


def maps():
    return nn.Conv2d(3, 4, 3)


def smooth():
    torch.manual_seed(0)
    return nn.Sequential(build(), nn.Hardswish())
"""

_number = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of a name of its own: one of a name is imported once a process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / f"exported_model_{next(_number)}.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def named(folder: Path) -> str:
    """``exported_model_3.py``, to be followed by a colon and a function."""
    return next(folder.glob("exported_model_*.py")).name


@pytest.fixture
def images() -> np.ndarray:
    """(N, H, W, C) uint8."""
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
