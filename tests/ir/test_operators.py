"""The operator table: what operators are, and that every spelling is one its format knows."""

from __future__ import annotations

import pytest

from edgekd.ir.operators import (
    ATEN,
    ONNX,
    OPENVINO,
    TABLE,
    TFLITE,
    aten_operator,
    kernel_kind,
    operator_kind,
    weight_axis,
)

NOT_ATEN = {"avg_pool", "conv", "conv_transpose", "depthwise", "end", "getitem", "max_pool", "quantize"}
"""One name for several of torch's, and rows of files alone."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("convolution", "conv"),
        ("addmm", "dense"),
        ("bmm", "dense"),
        ("matmul", "dense"),
        ("max_pool2d_with_indices", "pool"),
        ("_adaptive_avg_pool2d", "pool"),
        ("amax", "pool"),
        ("_softmax", "other"),
        ("log_softmax", "other"),
        ("maximum", "other"),  # alone: its kind is `clamp`
        ("clamp_max", "other"),
        ("cumsum", "other"),
        ("argmax", "other"),
        ("native_layer_norm", "other"),
        ("upsample_bilinear2d", "move"),
        ("constant_pad_nd", "move"),
        ("repeat", "move"),
        ("no_such_operator", "other"),
    ],
)
def test_an_operator_is_no_kernel_because_of_letters_in_its_name(name, kind):
    assert kernel_kind(aten_operator(name).kind) == kind


def test_spellings_of_one_operator_have_one_name():
    assert {aten_operator(name).name for name in ("conv1d", "conv2d", "convolution")} == {"conv"}
    assert aten_operator("add_").name == "add"
    assert aten_operator("_unsafe_view").name == "view"
    assert aten_operator("_my_own_").name == "_my_own"


def test_attention_multiplies_without_a_weight_and_a_transposed_convolution_with_one():
    assert not aten_operator("bmm").weighted
    assert not aten_operator("matmul").weighted
    assert aten_operator("linear").weighted
    assert aten_operator("conv_transpose2d").weighted
    assert [weight_axis(kind) for kind in ("conv_transpose", "ConvTranspose", "TRANSPOSE_CONV")] == [1, 1, 0]
    assert weight_axis("matmul") is None


def test_all_that_has_an_integer_form():
    """One more needs calibration, the integer reference, parity and every exporter to know it."""
    forms = {form: {row.name for row in TABLE.values() if row.encodes == form} for form in ("own", "input", "shared")}
    assert forms["input"] == {
        "clone", "dropout", "flatten", "getitem", "max_pool", "pad", "permute", "slice", "split", "squeeze",
        "unsqueeze", "upsample_nearest2d", "view",
    }  # fmt: skip
    assert forms["shared"] == {"adaptive_avg_pool2d", "avg_pool", "cat"}
    assert forms["own"] == {
        "add", "clamp", "conv", "depthwise", "hardtanh", "linear", "mean", "mul", "relu", "relu6", "sub",
    }  # fmt: skip
    assert {row.name for row in TABLE.values() if row.fuses_relu} == {"conv", "linear", "add"}


def test_formats_agree_on_what_an_operator_is():
    """Each of these is spelled by all three."""
    for onnx, tflite, openvino in [
        ("Softmax", "SOFTMAX", "SoftMax"),
        ("ConvTranspose", "TRANSPOSE_CONV", "ConvolutionBackpropData"),
        ("Max", "MAXIMUM", "Maximum"),
        ("Tile", "TILE", "Tile"),
        ("DepthToSpace", "DEPTH_TO_SPACE", "DepthToSpace"),
        ("Cast", "CAST", "Convert"),
    ]:
        assert ONNX[onnx] == TFLITE[tflite] == OPENVINO[openvino]
    assert operator_kind(TFLITE, "BATCH_MATMUL") == operator_kind(ONNX, "MatMul") == "dense"


def test_every_aten_spelling_is_torchs():
    torch = pytest.importorskip("torch")
    known = {name.split("::")[1].split(".")[0].strip("_") for name in torch._C._dispatch_get_all_op_names()}
    assert set(ATEN) - known == NOT_ATEN


def test_every_onnx_spelling_is_onnxs():
    onnx = pytest.importorskip("onnx")
    assert set(ONNX) - {schema.name for schema in onnx.defs.get_all_schemas()} == set()


def test_every_tflite_spelling_is_tflites():
    from edgekd.export.tflite.flatbuffer import schema

    assert set(TFLITE) - set(vars(schema().BuiltinOperator)) == set()


@pytest.mark.runtime
def test_every_openvino_spelling_is_openvinos():
    import openvino

    known = set()
    for number in range(1, 16):
        module = getattr(openvino, f"opset{number}", None)
        known |= set(dir(module)) if module is not None else set()
    folded = {name.replace("_", "").lower() for name in known}
    assert {name for name in OPENVINO if name.lower() not in folded} == set()
