"""What a device's tables say of models: figures of the kind predicted, with their error, or the reason why not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.artefacts import Backend
from edgekd.errors import MissingError
from edgekd.evidence import EvidenceKind
from edgekd.ir.kernels import Kernel
from edgekd.ir.numerics import Precision
from edgekd.measure.prediction.predict import ModelOnBackend, predict_models
from edgekd.measure.tables import LatencyTable, TableRow
from edgekd.testing.fakes.device import fake_fingerprint
from tests.measure.prediction.device_on_paper import latency_us, some_networks

LITERT, ORT = Backend.model_validate("litert/xnnpack"), Backend.model_validate("onnxruntime/cpu")


def table(count, backend=LITERT, precision=Precision.FLOAT32, speed=1.0):
    rows = [
        TableRow(kernels=network, p5_us=latency_us(network, speed, seed), memory_bytes=1_000_000 + 10 * seed)
        for seed, network in enumerate(some_networks(count, seed=0))
    ]
    return LatencyTable(
        device="board", fingerprint=fake_fingerprint(), backend=backend, precision=precision, rows=tuple(rows)
    )


def asked(backend=LITERT, precision=Precision.FLOAT32, kernels=None):
    return ModelOnBackend("m.tflite", backend, precision, kernels or some_networks(1, seed=9)[0])


def predict(tables, *models):
    return predict_models("board", fake_fingerprint(), 1, tables, models)


@pytest.mark.slow
def test_figures_are_predicted_and_come_with_their_error():
    (row,) = predict([table(30)], asked()).rows
    low, memory = row.figures
    assert (low.metric, memory.metric) == ("latency.p5", "memory.model")
    assert {low.kind, memory.kind} == {EvidenceKind.PREDICTED}
    assert low.subject == fake_fingerprint().digest()
    assert low.low <= latency_us(some_networks(1, seed=9)[0]) <= low.high
    assert row.held_out.samples == 30
    assert row.macs == sum(kernel.macs for kernel in some_networks(1, seed=9)[0])


@pytest.mark.slow
def test_models_that_add_nothing_to_memory_are_readings_too():
    rows = [row.but(memory_bytes=0 if at < 3 else row.memory_bytes) for at, row in enumerate(table(10).rows)]
    (row,) = predict([table(10).but(rows=tuple(rows))], asked()).rows
    (memory,) = [figure for figure in row.figures if figure.metric == "memory.model"]
    assert "from 10 networks" in memory.method
    assert memory.low == 0.0


@pytest.mark.slow
def test_a_short_table_has_the_fullest_other_one_as_its_prior():
    network = some_networks(1, seed=9)[0]
    (row,) = predict([table(40), table(10, ORT, speed=3.0)], asked(ORT)).rows
    assert row.figures[0].value == pytest.approx(latency_us(network, 3.0), rel=0.1)


@pytest.mark.slow
def test_after_an_upgrade_ten_networks_and_the_table_before_go_further_than_ten_alone():
    before = table(40, speed=1.4).but(fingerprint=fake_fingerprint().but(runtimes={"litert": "2.2.0"}))
    ten, others = table(10), some_networks(60, seed=9)
    models = [asked(kernels=network) for network in others]

    def error(other_devices):
        report = predict_models("board", fake_fingerprint(), 1, [ten], models, other_devices)
        found = zip(report.rows, others, strict=True)
        return report, np.median([abs(row.figures[0].value / latency_us(network) - 1.0) for row, network in found])

    (alone, plain), (helped, better) = error(()), error((before,))
    assert better < 0.5 * plain
    assert {row.prior for row in alone.rows} == {""}
    assert {row.prior for row in helped.rows} == {"40 networks on litert/xnnpack float32 of board in another state"}
    said = " ".join(" ".join(helped.lines()).split())
    assert "so few start from 40 networks on litert/xnnpack float32 of board in another state" in said


@pytest.mark.slow
def test_a_table_that_has_enough_starts_from_no_other():
    (row,) = predict_models("board", fake_fingerprint(), 1, [table(24), table(40, ORT)], [asked()]).rows
    assert row.prior == ""


@pytest.mark.slow
def test_the_remedy_is_the_command_that_measures_what_is_missing():
    tables = [table(30).but(threads=2)]
    report = predict_models("board", fake_fingerprint(), 2, tables, [asked(), asked(ORT, Precision.DYNAMIC_INT8)])
    command = "edgekd profile board --backend onnxruntime/cpu --precision dynamic-int8 --threads 2"
    assert [row.remedy for row in report.rows] == ["", command]
    assert command in " ".join(" ".join(report.lines()).split())


@pytest.mark.slow
def test_where_one_model_has_no_table_the_others_are_still_predicted():
    report = predict([table(30)], asked(), asked(ORT, Precision.INT8))
    assert [bool(row.figures) for row in report.rows] == [True, False]
    assert "no table of onnxruntime/cpu int8 here; run: edgekd profile" in " ".join(" ".join(report.lines()).split())


def test_where_nothing_is_known_it_says_how_to_measure():
    with pytest.raises(MissingError, match="7 networks were measured") as raised:
        predict([table(7)], asked())
    assert "edgekd profile board" in str(raised.value)


@pytest.mark.slow
def test_kernels_unlike_any_are_said():
    strange = (Kernel("conv", 4, 4, 96, 96, 25, 1, 3_686_400, 36_864, 36_864, 400),)
    report = predict([table(30)], asked(kernels=strange))
    (row,) = report.rows
    assert row.unlike == 1.0
    assert "unlike any that was measured" in " ".join(" ".join(report.lines()).split())
    (usual,) = predict([table(30)], asked()).rows
    assert usual.unlike < 0.1


@pytest.mark.slow
def test_nothing_is_predicted_of_operators_that_nothing_measured_has():
    """However little they are expected to take: nobody knows."""
    usual = some_networks(1, seed=9)[0]
    network = (*usual, Kernel("move", 64, 64, 64, 64, 1, 1, 0, 262_144, 262_144, 0))
    report = predict([table(30)], asked(kernels=network), asked())
    row, other = report.rows
    assert (row.unseen, row.figures) == (("move",), ())
    assert (other.unseen, bool(other.figures)) == ((), True)
    said = " ".join(" ".join(report.lines()).split())
    assert (
        "nothing that was measured there has its padding, slicing or joining of tensors, or none so large; "
        "run: edgekd bench" in said
    )
    assert "edgekd bench m.tflite --device board" in said
    with pytest.raises(MissingError, match="has its padding") as raised:
        predict([table(30)], asked(kernels=network))
    assert "edgekd bench m.tflite" in str(raised.value)
    short, long = table(12).rows, table(30, ORT).rows
    larger = short[0].but(kernels=network)
    for tables in (
        [table(12).but(rows=(*short[1:], larger))],
        [table(12), table(30, ORT).but(rows=(*long[1:], larger))],  # the prior knows
    ):
        assert predict(tables, asked(kernels=network)).rows[0].unseen == ()
    small = (*usual, network[-1]._replace(reads=10, writes=10))
    assert predict([table(30)], asked(kernels=small)).rows[0].figures


@pytest.mark.slow
def test_a_little_one_of_a_sort_says_nothing_of_large_ones():
    """As one whose input LiteRT scales channel by channel says nothing of depthwise convolutions."""
    scaling = Kernel("depthwise", 3, 3, 8, 8, 1, 1, 192, 192, 192, 3)
    rows = tuple(row.but(kernels=(scaling, *row.kernels)) for row in table(12).rows)
    network = (scaling, *some_networks(1, seed=9)[0])
    deep = (*network, Kernel("depthwise", 64, 64, 64, 64, 9, 1, 2_359_296, 262_144, 262_144, 576))
    known = table(12).but(rows=rows)
    (usual, strange) = predict([known], asked(kernels=network), asked(kernels=deep)).rows
    assert usual.figures
    assert strange.unseen == ("depthwise",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "image",
    [
        Kernel("move", 48, 3, 48, 48, 1, 1, 0, 6912, 6912, 0),
        Kernel("depthwise", 3, 3, 48, 48, 1, 1, 6912, 6912, 6912, 3),
    ],
)
def test_what_is_done_to_images_says_nothing_of_the_same_inside_a_network(image):
    """Dear here, as one more operator may be for each pixel of ever larger images."""

    def seen(side):
        size = 3 * side * side
        macs = size if image.macs else 0
        return image._replace(height=side, width=side, macs=macs, reads=size, writes=size)

    sides = (32, 64, 96, 48)
    rows = tuple(
        row.but(kernels=(seen(sides[at % 4]), *row.kernels), p5_us=row.p5_us + 0.01 * seen(sides[at % 4]).reads)
        for at, row in enumerate(table(40).rows)
    )
    network = some_networks(1, seed=9)[0]
    inside = image._replace(inputs=64, outputs=64, height=16, width=16)
    known = table(40).but(rows=rows)
    usual, strange = predict([known], asked(kernels=(seen(48), *network)), asked(kernels=(inside, *network))).rows
    low = next(figure for figure in usual.figures if figure.metric == "latency.p5")
    assert low.value == pytest.approx(latency_us(network) + 0.01 * seen(48).reads, rel=0.1)
    assert strange.unseen == (image.kind,)


@pytest.mark.slow
def test_the_answer_keeps_to_80_columns_and_is_json():
    report = predict(
        [table(30)], asked(), ModelOnBackend("a-model-of-a-very-long-name-indeed-v12.tflite", ORT, *asked_rest())
    )
    assert max(map(len, report.lines())) <= 80
    assert "predicted, not measured" in report.lines()[-1]
    assert json.loads(report.model_dump_json(by_alias=True))["schema"] == "edgekd.predict/1"


def asked_rest():
    return Precision.DYNAMIC_INT8, some_networks(1, seed=9)[0]
