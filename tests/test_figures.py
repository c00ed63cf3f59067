"""Figures of the README and of the pages equal those of the benchmarks' cells."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text()


def cells(benchmark: str, pattern: str = "*") -> dict[str, Mapping[str, Any]]:
    found = {path.stem: json.loads(path.read_text()) for path in sorted((RESULTS / benchmark).glob(f"{pattern}.json"))}
    assert found, f"{benchmark} has no cell {pattern}"
    return found


def p50_us(certificate: Mapping[str, Any]) -> float:
    (value,) = [figure["value"] for figure in certificate["figures"] if figure["metric"] == "latency.p50"]
    return float(value)


def test_a_model_of_ones_own() -> None:
    found = cells("compress_resnet20")
    for runtime, title in (("litert", "LiteRT"), ("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
        before, certificate = found["own"]["own"][f"{runtime} float32"], found[runtime]["certificate"]
        (size,) = [file["size_bytes"] for file in certificate["files"] if file["name"] == certificate["model"]]
        if runtime == "openvino":  # its weights lie in a file of their own
            size += next(file["size_bytes"] for file in certificate["files"] if file["name"].endswith(".bin"))
        was = f"{before['p50']['value']:.0f} us, {before['size_bytes']:,} B"
        accuracy = 100 * certificate["accuracy"]["value"]
        assert f"| {title} | {was} | {p50_us(certificate):.0f} us, {size:,} B, {accuracy:.2f} % |" in README


def test_distillation() -> None:
    mean = {
        loss: 100 * statistics.mean(cell["test"] for cell in cells("distill_losses", f"{loss}-[1-6]").values())
        for loss in ("ce", "reviewkd", "fitnet", "kd")
    }
    gains = {loss: math.floor(10 * round(mean[loss] - mean["ce"], 4) + 0.5) / 10 for loss in mean}  # half up
    text = " ".join(README.split())
    assert f"`reviewkd` adds {gains['reviewkd']} points to what labels alone give ({mean['ce']:.1f} %)" in text
    assert f"`fitnet` {gains['fitnet']}, `kd` {gains['kd']}." in text


def test_ones_own_pictures() -> None:
    found = cells("own_pictures")
    own, tflite = (100 * found[name]["accuracy"]["unseen"] for name in ("torch", "tflite"))
    by_hand = [100 * found["by-hand"]["made"][name]["accuracy"]["unseen"] for name in ("adamw", "sgd")]
    assert f"{own:.1f} % of 4,000 unseen images ({tflite:.1f} % with the teacher as a TFLite file)" in README
    assert "without augmentation: {:.1f} and {:.1f} %".format(*by_hand) in README
    page, made = (ROOT / "docs" / "results.md").read_text(), found["by-hand"]["made"]
    for scores in [
        found["torch"]["accuracy"],
        found["tflite"]["accuracy"],
        *(one["accuracy"] for one in made.values()),
    ]:
        assert f"| {100 * scores['test']:.1f} % | {100 * scores['unseen']:.1f} % |" in page


def test_exports_beside_the_vendors_tools() -> None:
    rows = [
        (name, row) for cell in cells("export_models").values() for name, row in cell["formats"].items()
        if row.get("agreement")
    ]  # fmt: skip
    lower = [row for _, row in rows if row["agreement"]["p"] < 0.05 and _of_vendor_only(row["agreement"]) > 0]
    (lost,) = [100 * _of_vendor_only(row["agreement"]) / row["agreement"]["samples"] for row in lower]
    slower = [row["latency"]["ratio"] for _, row in rows if row["latency"]["distinguishable"]]
    slower = sorted(ratio for ratio in slower if ratio > 1)
    assert f"no lower in {len(rows) - 1} of {len(rows)} pairs (-{lost:.1f} points in one)" in README
    assert len(slower) == 5
    assert f"no higher in {len(rows) - len(slower)} ({slower[0]:.2f} to {slower[-1]:.2f} times in five" in README
    onnx, tflite, openvino = (
        math.exp(statistics.mean(math.log(row["latency"]["ratio"]) for name, row in rows if name == form))
        for form in ("onnx", "tflite", "openvino")
    )
    assert f"{onnx:.2f} (ONNX Runtime), {tflite:.2f} (LiteRT) and {openvino:.2f} times (OpenVINO) theirs" in README


def test_every_export_beside_a_vendors_tool() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    for cell in cells("export_models").values():
        columns = []
        for form in ("onnx", "tflite", "openvino"):
            row = cell["formats"][form]
            ours, vendors = row["edgekd"]["agreement"], row["vendor"].get("agreement")
            ratio = f"{row['latency']['ratio']:.2f}" if vendors is not None else ""
            columns.append("no vendor file" if vendors is None else f"{ours:.1%} : {vendors:.1%}, {ratio}")
        assert f"| {cell['model']} | {' | '.join(columns)} |" in page


def test_a_mobilenet_compressed_and_a_network_by_hand() -> None:
    found = cells("compress_mobilenet")
    files, hand = found["latency"]["files"], found["by_hand"]["accuracy"]
    page = " ".join((ROOT / "docs" / "own-model.md").read_text().split())
    certificate, ms = found["compress"]["certificate"], {name: row["p50"]["value"] / 1e3 for name, row in files.items()}
    assert (found["own"]["weights"], found["by_hand"]["weights"]) == (4_337_292, 76_812)
    own, made = "own, openvino float32", files["compressed"]["size_bytes"] / 1e6
    was = f"{certificate['own']['value']:.1%} right at {ms[own]:.2f} ms and {files[own]['size_bytes'] / 1e6:.1f} MB"
    became = f"{certificate['accuracy']['value']:.1%} at {ms['compressed']:.2f} ms and {made:.1f} MB"
    by_hand = f"{hand['float32']:.1%} at {1e3 * ms['by hand, float32']:.0f} us"
    int8 = f"{hand['int8']:.1%} at {1e3 * ms['by hand, int8']:.0f} us in int8"
    for text in (was, became, by_hand, int8):
        assert text.replace("%", " %") in page


def _of_vendor_only(agreement: Mapping[str, int]) -> int:
    return agreement["only_second"] - agreement["only_first"]
