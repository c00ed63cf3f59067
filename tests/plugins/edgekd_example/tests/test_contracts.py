"""The suites that edgekd ships, run on every part of this package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from edgekd_example.family import Plain
from edgekd_example.feature_loss import Cosine
from edgekd_example.loss import LogitMSE
from edgekd_example.task import Stripes
from edgekd_example.teacher import StripeRule

from edgekd.tasks._protocol import TaskSpec
from edgekd.testing.contracts.family import FamilyContract
from edgekd.testing.contracts.feature_loss import FeatureLossContract
from edgekd.testing.contracts.loss import LossContract
from edgekd.testing.contracts.task import TaskContract
from edgekd.testing.contracts.teacher import TeacherContract


class TestLogitMSE(LossContract):
    @pytest.fixture
    def loss(self) -> LogitMSE:
        return LogitMSE()


class TestCosine(FeatureLossContract):
    @pytest.fixture
    def loss(self) -> Cosine:
        return Cosine()


class TestPlain(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Plain]:
        return Plain


class TestStripes(TaskContract):
    @pytest.fixture
    def make_task(self) -> Callable[[], Stripes]:
        return Stripes


class TestStripeRule(TeacherContract):
    @pytest.fixture
    def make_teacher(self) -> Callable[[], StripeRule]:
        return StripeRule

    @pytest.fixture
    def spec(self) -> TaskSpec:
        return Stripes().spec
