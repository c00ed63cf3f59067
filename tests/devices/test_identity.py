"""A device's identity: edgekd's own runtimes for every backend, another package's for its own backends alone."""

from __future__ import annotations

import pytest

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.devices.reconnecting import _changes
from edgekd.ir import shipped_backends
from edgekd.ir.backends import SHIPPED, BackendSpec
from edgekd.testing.fakes.device import fake_fingerprint

PLAIN = fake_fingerprint()
LITERT, OPENVINO = Backend.model_validate("litert/xnnpack"), Backend.model_validate("openvino/cpu")
TINY, NPU = Backend.model_validate("tiny/cpu"), Backend.model_validate("openvino/npu")


def beside(version: str) -> Fingerprint:
    """The same device where another package brings `tiny/cpu` and `openvino/npu`."""
    providers = {**PLAIN.providers, "tiny": ("cpu", "fast"), "openvino": ("cpu", "npu")}
    return PLAIN.but(runtimes={**PLAIN.runtimes, "tiny": version}, providers=providers)


@pytest.mark.parametrize("backends", [(), (LITERT,), (OPENVINO,), (LITERT, OPENVINO)])
def test_another_packages_runtime_is_no_part_of_what_is_measured_on_ours(backends: tuple[Backend, ...]) -> None:
    assert beside("1.0").digest(*backends) == PLAIN.digest()
    assert beside("1.0").changed(PLAIN, *backends) == []


def test_it_is_a_part_of_what_is_measured_on_it() -> None:
    assert beside("1.0").changed(PLAIN, TINY) == ["runtimes", "providers"]
    assert beside("1.0").changed(beside("1.1"), TINY) == ["runtimes"]
    assert beside("1.0").changed(beside("1.1"), LITERT, NPU) == []
    assert beside("1.0").identity(TINY)["providers"]["tiny"] == ["cpu"]
    assert PLAIN.changed(beside("1.0"), NPU) == ["providers"]


def test_our_runtimes_are_a_part_of_everything() -> None:
    upgraded = beside("1.0").but(runtimes={**PLAIN.runtimes, "openvino": "2027.0", "tiny": "1.0"})
    for backend in (LITERT, OPENVINO, TINY, NPU):
        assert upgraded.digest(backend) != beside("1.0").digest(backend)


def test_all_that_a_simulator_names_is_its_own() -> None:
    simulator = beside("1.0").but(simulator="compiler 1.0")
    assert simulator.digest() == simulator.digest(TINY) != beside("1.1").but(simulator="compiler 1.0").digest()


def test_the_names_that_count_for_every_device_are_those_of_the_records_we_ship() -> None:
    records = [getattr(shipped_backends, name) for name in shipped_backends.__all__]
    assert {spec.name for spec in records if isinstance(spec, BackendSpec)} == SHIPPED


def test_a_kernel_that_keeps_a_little_more_for_itself_is_the_same_machine() -> None:
    again = PLAIN.but(memory_bytes=round(PLAIN.memory_bytes * 1.0002))
    assert PLAIN.changed(again) == []
    assert PLAIN.changed(PLAIN.but(memory_bytes=2 * PLAIN.memory_bytes)) == ["memory_bytes"]


def test_a_device_that_comes_back_changed_is_told_by_what_changed() -> None:
    installed = PLAIN.but(governor="ondemand", runtimes={**PLAIN.runtimes, "tiny": "1.1"})
    assert _changes(PLAIN, PLAIN.but(memory_bytes=PLAIN.memory_bytes + 4096)) == []
    assert _changes(PLAIN, installed) == [f"governor ({PLAIN.governor}, now ondemand)", "tiny (none, now 1.1)"]
