"""Precisions: each is data, and what a runtime isn't listed with is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.compress.quantization.precision_support import problems_with
from edgekd.export._protocol import ExportOptions
from edgekd.export.onnx.encode import packed
from edgekd.ir.backends import BACKENDS, formats_of, runtimes
from edgekd.ir.encoding import Encoding
from edgekd.ir.numerics import A8, A16, W8, Precision
from edgekd.ir.support import COMPARED, precisions_of
from edgekd.students._protocol import Student

UNLISTED = [
    (backend, precision)
    for backend in BACKENDS
    for precision in Precision
    if precision not in precisions_of(Backend.model_validate(backend))
]


def test_every_precision_is_on_some_runtime_and_a_search_compares_what_all_have() -> None:
    listed = [spec.precisions for spec in BACKENDS.values()]
    assert set().union(*listed) == set(Precision)
    assert all(set(COMPARED) <= set(found) for found in listed)
    assert UNLISTED


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "precision"), UNLISTED)
def test_a_runtime_without_the_precision_says_so_and_which_has_it(
    backend: str, precision: Precision, calibrated: dict[Precision, Student]
) -> None:
    where, student = Backend.model_validate(backend), calibrated[precision]
    exporter = plugins.load("edgekd.exporters", formats_of(where)[0].value)()
    for problems in (problems_with(student, precision, where), exporter.check(student, ExportOptions(), where, None)):
        assert [problem.message for problem in problems] == [f"{backend} has no {precision.value} models"]
        assert problems[0].remedy.startswith("use ")
        assert any(runtime in problems[0].remedy for runtime in runtimes())


def test_every_precision_has_its_types_and_its_words() -> None:
    assert [one.weights.bits for one in Precision] == [32, 16, 16, 8, 8, 8, 8, 8]
    assert [one.activations.bits for one in Precision] == [32, 32, 16, 32, 16, 32, 8, 32]
    assert [one.least_weight_bits for one in Precision] == [32, 16, 16, 8, 8, 8, 8, 4]
    assert [one for one in Precision if one.is_static] == [Precision.INT16X8, Precision.INT8]
    assert sorted(Precision, key=lambda one: one.fidelity) == list(reversed(Precision))
    for one in Precision:
        assert all(one.arithmetic(file_format) for file_format in Format)


def test_four_bits_are_packed_by_twos_the_first_one_low() -> None:
    assert packed(np.array([[1, -1, 7]], np.int8)) == bytes([0xF1, 0x07])


def test_integers_end_where_their_type_says() -> None:
    assert (A8.lowest, A8.highest) == (-128, 127)
    assert (A16.lowest, A16.highest) == (-32767, 32767)
    assert (W8.lowest, W8.highest) == (-127, 127)
    one = Encoding(bits=8, scale=(1.0,), zero_point=(0,))
    assert (one.lowest, one.highest) == (-128, 127)
    assert (one.but(limit=7).lowest, one.but(limit=7).highest) == (-7, 7)
