"""A model one has, exported by one command: the smallest precision that keeps its accuracy, in two formats."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.tasks.digits import Digits

pytestmark = pytest.mark.journey

ALSO = {"tflite": {"int16x8"}, "onnx": {"int8-weights"}, "openvino": {"int8-weights", "bf16"}}
EVERYWHERE = {"int8", "dynamic-int8", "int4-weights"}
OWN = Path(__file__).parents[2] / "examples" / "own_model"


def test_a_model_becomes_bundles_at_the_smallest_precision_that_keeps_its_accuracy(edgekd):
    for name in ("my_model.py", "my_model.safetensors"):
        shutil.copyfile(OWN / name, edgekd.folder / name)
    task, arrays = Digits(), {}
    for split in ("train", "validation", "test"):
        arrays |= {f"x_{split}": task.split(split).inputs, f"y_{split}": task.split(split).labels}
    np.savez(edgekd.folder / "digits.npz", **arrays)
    mean, std = (str(values[0]) for values in (task.spec.input.mean, task.spec.input.std))
    done = edgekd(
        *("export", "my_model.py:build", "--weights", "my_model.safetensors", "--data", "digits.npz"),
        *("--mean", mean, "--std", std, "--max-drop", "1%", "--output", "out"),
        *(
            "--precision",
            "int8,int16x8,dynamic-int8,int8-weights,bf16,int4-weights",
            "--format",
            "tflite,onnx,openvino,json",
        ),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == "edgekd.export-model/1"
    assert answer["accuracy"] > 0.95
    for form, suffix in (("tflite", ".tflite"), ("onnx", ".onnx"), ("openvino", ".xml")):
        files = [file for file in answer["files"] if file["format"] == form and file["outcome"] != "refused"]
        assert {file["precision"] for file in files} == EVERYWHERE | ALSO[form]
        assert all(file["parity"]["agree"] == file["parity"]["samples"] for file in files)
        (written,) = [file for file in files if file["outcome"] == "written"]
        assert written["size_bytes"] == min(file["size_bytes"] for file in files)
        assert written["accuracy"] >= answer["accuracy"] - 0.015
        folder = edgekd.folder / "out" / form
        expected = {"README.md", "example.py", f"model{suffix}", "preprocess.json", "samples.npz"}
        expected |= {"model.bin"} if form == "openvino" else set()
        assert {path.name for path in folder.iterdir()} == expected
    edgekd.change(
        "project.yaml", "{kind: train, width: 16, epochs: 2}", "{kind: tflite, file: out/tflite/model.tflite}"
    )
    edgekd.change("project.yaml", "{width: [8, 16], depth: [1, 1]}", "{widths: [8, 8], depths: [1, 1]}")
    taught = edgekd("distill", "project.yaml", "--run", "taught", "--format", "json")
    assert taught.returncode == 0, taught.stderr
    assert json.loads(taught.stdout)["certificate"]["teacher"] == "model"
    example = [sys.executable, str(edgekd.folder / "out" / "onnx" / "example.py")]
    assert subprocess.run(example, capture_output=True, text=True, check=True).stdout.startswith("class ")
