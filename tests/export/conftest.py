"""A small convolutional student in every precision, one conversion worker, and this computer, for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import DeviceSession, Fingerprint
from edgekd.devices.local import LocalDevice
from edgekd.export.converter import Converter
from edgekd.ir.encoding import Annotations
from edgekd.ir.numerics import Precision
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec


def student_of(mean: tuple[float, ...] = (128.0,), std: tuple[float, ...] = (64.0,)) -> Student:
    """Untrained, 3x16x16 bytes to 10 classes."""
    spec = TaskSpec(
        name="squares", input=InputSpec(shape=(3, 16, 16), mean=mean, std=std), head=HeadSpec(classes=10), data="0" * 64
    )
    family = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 1]}})
    return new_student(family, family.space(spec).at(1), spec, seed=0)


@pytest.fixture(scope="session")
def samples() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="session")
def calibrated(samples: NDArray[np.uint8]) -> dict[Precision, Student]:
    student = student_of()
    made = {precision: calibrate(student, samples, precision, "minmax") for precision in Precision}
    # 16 bits with the very weights of float32: all then share one conversion
    for short in (Precision.FLOAT16, Precision.BF16):
        made[short] = made[Precision.FLOAT32].but(annotations=Annotations(precision=short))
    return made


@pytest.fixture(scope="session")
def coloured(samples: NDArray[np.uint8]) -> Student:
    """Static int8, with a mean and deviation a channel."""
    return calibrate(student_of((120.5, 110.0, 100.0), (60.0, 61.0, 62.0)), samples, Precision.INT8, "minmax")


@pytest.fixture(scope="session")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converter]:
    with Converter(tmp_path_factory.mktemp("converter")) as converter:
        yield converter


@pytest.fixture(scope="session")
def this_computer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceSession]:
    """Open for the whole session, with a lock of its own: others open this computer meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("locks")))
        session = LocalDevice(name="tests-export").open()
    yield session
    session.close()


@pytest.fixture(scope="session")
def saturating() -> Fingerprint:
    """An x86 CPU without 8-bit dot products."""
    return Fingerprint(
        cpu="old",
        architecture="x86_64",
        cores=2,
        extensions=("avx2",),
        memory_bytes=1 << 30,
        governor=None,
        os="linux",
        python="3.11",
        runtimes={},
        providers={},
    )


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")
