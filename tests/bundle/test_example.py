from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from edgekd.artefacts import Backend
from edgekd.bundle.example import example_source
from edgekd.bundle.preprocess import preprocess_of
from edgekd.bundle.samples import Samples, samples_bytes
from edgekd.export._protocol import ExportOptions
from edgekd.export.tensors import to_model_inputs
from edgekd.ir.backends import BACKENDS
from edgekd.ir.encoding import Encoding
from edgekd.store.atomic import write_json
from edgekd.tasks._protocol import PictureSpec, TaskSpec

FIELDS = ExportOptions.model_fields
NAMES = ("input", "output", "layout", "preprocess")
ENCODING = Encoding(bits=8, scale=(0.03,), zero_point=(-9,))


def combinations() -> list[ExportOptions]:
    choices = (get_args(FIELDS[name].annotation) for name in NAMES)
    return [ExportOptions(**dict(zip(NAMES, chosen, strict=True))) for chosen in itertools.product(*choices)]


def batch_of(source: str, samples: Samples) -> Any:
    """What the example makes of the first sample, without a runtime: the lines that begin with ``batch``."""
    names: dict[str, Any] = {"np": np, "samples": {"inputs": samples.inputs}}
    exec("\n".join(line for line in source.splitlines() if line.startswith("batch = ")), names)
    return names["batch"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_for_every_option(backend: str, spec: TaskSpec) -> None:
    for options in combinations():
        source = example_source("model.bin", Backend.model_validate(backend), 2, options, spec, ENCODING)
        compile(source, "example.py", "exec")
        assert "edgekd" not in source
        assert max(map(len, source.splitlines())) <= 120


@pytest.mark.runtime
def test_calls_the_runtime_as_the_agent_measures_it(spec: TaskSpec) -> None:
    """Another precision hint would give other answers than the certified ones."""
    from edgekd.agent.runtimes.litert import LiteRt
    from edgekd.agent.runtimes.onnxruntime import OnnxRuntime
    from edgekd.agent.runtimes.openvino import OpenVino

    sources = {
        backend: example_source("m", Backend.model_validate(backend), 2, ExportOptions(), spec, None)
        for backend in BACKENDS
    }
    assert f"options = {json.dumps(OpenVino(2).options)}" in sources["openvino/cpu"]
    measured = OnnxRuntime(2)._options()
    for name in ("intra_op_num_threads", "inter_op_num_threads"):
        assert f"options.{name} = {getattr(measured, name)}" in sources["onnxruntime/cpu"]
    (resolver,) = LiteRt("builtin", 2).options.values()
    assert f"plain = OpResolverType.{resolver.name}" in sources["litert/builtin"]
    assert LiteRt("xnnpack", 2).options == {}
    assert "OpResolverType" not in sources["litert/xnnpack"]


@pytest.mark.parametrize("options", combinations(), ids=lambda o: f"{o.input}-{o.output}-{o.layout}-{o.preprocess}")
def test_feeds_what_the_file_takes(options: ExportOptions, spec: TaskSpec, samples: Samples) -> None:
    source = example_source("model.tflite", Backend.model_validate("litert/xnnpack"), 1, options, spec, ENCODING)
    found = batch_of(source, samples)
    (expected,) = to_model_inputs(samples.inputs[:1], spec, options, ENCODING)
    assert found.dtype == expected.dtype
    assert found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.runtime
def test_runs_beside_a_real_model(spec: TaskSpec, samples: Samples, tmp_path: Path) -> None:
    """A sum over the pixels of each channel: the class is the brightest channel."""
    import onnx
    from onnx import TensorProto, helper

    from edgekd.bundle.samples import samples_bytes

    shape = [1, *spec.input.shape]
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["wide"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    (tmp_path / "samples.npz").write_bytes(samples_bytes(samples))
    options = ExportOptions(input="uint8", layout="nchw")
    source = example_source("m.onnx", Backend.model_validate("onnxruntime/cpu"), 1, options, spec, None)
    (tmp_path / "example.py").write_text(source)
    ran = subprocess.run([sys.executable, tmp_path / "example.py"], capture_output=True, text=True, check=True)
    brightest = int(np.argmax(samples.inputs[0].mean(axis=(1, 2))))
    assert ran.stdout == f"class {brightest} label {samples.labels[0]}\n"


@pytest.mark.runtime
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_it_answers_a_picture_that_is_named(spec: TaskSpec, samples: Samples, tmp_path: Path, fit: Any) -> None:
    import onnx
    from onnx import TensorProto, helper

    picture = PictureSpec(size=(4, 5), fit=fit)
    of_pictures = spec.but(input=spec.input.but(picture=picture))
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["wide"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *spec.input.shape])
    answered = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "highest", [given], [answered])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    (tmp_path / "samples.npz").write_bytes(samples_bytes(samples))
    options = ExportOptions(input="uint8", layout="nchw")
    write_json(tmp_path / "preprocess.json", preprocess_of(of_pictures, options, None, None))
    source = example_source("m.onnx", Backend.model_validate("onnxruntime/cpu"), 1, options, of_pictures, None)
    (tmp_path / "example.py").write_text(source)
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[3, 10, 2] = 200
    pixels[:, 0, 0] = 255  # the left edge, which a crop cuts off
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    ran = [sys.executable, tmp_path / "example.py", tmp_path / "picture.png"]
    said = subprocess.run(ran, capture_output=True, text=True, check=True).stdout
    assert said == f"class {'other' if fit == 'crop' else 'round'}\n"
    ran = [sys.executable, tmp_path / "example.py"]
    assert subprocess.run(ran, capture_output=True, text=True, check=True).stdout.startswith("class ")


def test_a_model_of_a_fixed_batch_is_fed_as_many(spec: TaskSpec, samples: Samples) -> None:
    options = ExportOptions(batch=3)
    fed = batch_of(example_source("m", Backend.model_validate("litert/xnnpack"), 1, options, spec, ENCODING), samples)
    (expected,) = to_model_inputs(samples.inputs[[0, 0, 0]], spec, options, ENCODING)
    np.testing.assert_allclose(fed, expected, rtol=1e-6)
