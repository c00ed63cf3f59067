"""Operator table: quantization, runtime kernel and spelling in each format, for every operator.

One row for each operator, under its canonical name: the name in keys of tensors (``blocks.0:add``). A traced student's
operators are looked up by ATen's spelling, a file's by its format's. An operator without a row is ``other``, takes no
weight and has no integer form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, cast

from edgekd.ir.kernels import KernelKind

__all__ = [
    "ATEN",
    "FAMILY_KERNELS",
    "ONNX",
    "OPENVINO",
    "PROFILE_FAMILIES",
    "TABLE",
    "TFLITE",
    "OperatorKind",
    "OperatorSpec",
    "aten_operator",
    "kernel_kind",
    "operator_kind",
    "weight_axis",
]

OperatorKind = KernelKind | Literal["clamp", "scale", "free", "pad"]
"""Kind of an operator in a runtime. ``clamp`` is an activation that is fused into the preceding kernel, ``scale``
multiplies by or subtracts a constant and may be fused too, ``pad`` is fused into the following convolution, ``free``
(changes of shape or number format) costs nothing."""

Encodes = Literal["own", "input", "shared", "none"]
"""Encoding of an operator's result in a static int8 student: its ``own``, that of its ``input`` (its values are values
of the input, or zero for padding: nothing is rescaled), or one ``shared`` with all inputs. ``none``: it has no integer
form. Whether a runtime then computes it with integers is stated in `edgekd.ir.support`."""


class OperatorSpec(NamedTuple):
    """Row of the table."""

    name: str
    kind: OperatorKind = "other"
    encodes: Encodes = "none"
    weight_axes: Mapping[str, int] = {}  # spelling -> axis of the output channels in its weight; empty: takes none
    fuses_relu: bool = False  # its result is rounded once, behind the ReLU that follows it alone
    aten: tuple[str, ...] = ()  # spellings besides ``name``, without leading and trailing underscores
    onnx: tuple[str, ...] = ()
    tflite: tuple[str, ...] = ()
    openvino: tuple[str, ...] = ()

    @property
    def weighted(self) -> bool:
        """True if its second input may be a trained weight."""
        return bool(self.weight_axes)

    @property
    def moves(self) -> bool:
        """True if it computes nothing: it changes the shape, place or number format of values."""
        return self.kind in ("free", "move")

    @property
    def transparent(self) -> bool:
        """True if its result has the encoding of its input."""
        return self.encodes == "input"


def _kinds(kind: OperatorKind, *names: str) -> Iterator[OperatorSpec]:
    """Return rows of operators of a known kind, with ATen's spelling only."""
    return (OperatorSpec(name, kind) for name in names)


_ROWS: tuple[OperatorSpec, ...] = (
    # products with a weight
    OperatorSpec(
        "conv", "conv", "own", {"conv": 0, "Conv": 0, "CONV_2D": 0}, fuses_relu=True,
        aten=("conv1d", "conv2d", "convolution"), onnx=("Conv", "ConvInteger", "QLinearConv"),
        tflite=("CONV_2D", "CONV_3D"), openvino=("Convolution", "GroupConvolution"),
    ),
    OperatorSpec("depthwise", "depthwise", "own", {"DEPTHWISE_CONV_2D": 3}, tflite=("DEPTHWISE_CONV_2D",)),
    OperatorSpec(
        "conv_transpose", "conv", weight_axes={"conv_transpose": 1, "ConvTranspose": 1, "TRANSPOSE_CONV": 0},
        aten=("conv_transpose1d", "conv_transpose2d"), onnx=("ConvTranspose",), tflite=("TRANSPOSE_CONV",),
        openvino=("ConvolutionBackpropData", "GroupConvolutionBackpropData"),
    ),
    OperatorSpec(  # ONNX and OpenVINO name this and `matmul` MatMul: here the second input is constant
        "linear", "dense", "own", {"linear": 0, "Gemm": 0, "MatMul": 1, "FULLY_CONNECTED": 0}, fuses_relu=True,
        aten=("addmm",), onnx=("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"), tflite=("FULLY_CONNECTED",),
        openvino=("MatMul",),
    ),
    # products of two activations, as in attention
    OperatorSpec("matmul", "dense", aten=("mm", "bmm", "baddbmm"), tflite=("BATCH_MATMUL",)),
    # arithmetic
    OperatorSpec("add", "add", "own", fuses_relu=True, onnx=("Add",), tflite=("ADD",), openvino=("Add",)),
    OperatorSpec("sub", "scale", "own", onnx=("Sub",), tflite=("SUB",), openvino=("Subtract",)),
    OperatorSpec("mul", "scale", "own", onnx=("Mul",), tflite=("MUL",), openvino=("Multiply",)),
    OperatorSpec("div", "scale", onnx=("Div",), tflite=("DIV",), openvino=("Divide",)),
    OperatorSpec(
        "batch_norm", "scale",
        aten=("native_batch_norm", "native_batch_norm_legit", "native_batch_norm_legit_no_training"),
        onnx=("BatchNormalization",), openvino=("BatchNormInference",),
    ),
    # activations that kernels take in
    OperatorSpec("relu", "clamp", "own", onnx=("Relu",), tflite=("RELU",), openvino=("ReLU",)),
    OperatorSpec("relu6", "clamp", "own", tflite=("RELU6", "RELU_0_TO_1", "RELU_N1_TO_1")),
    OperatorSpec("hardtanh", "clamp", "own"),
    OperatorSpec("clamp", "clamp", "own", onnx=("Clip",), openvino=("Clamp",)),
    OperatorSpec("hardswish", "clamp", onnx=("HardSwish",), tflite=("HARD_SWISH",), openvino=("HSwish",)),
    OperatorSpec("silu", "clamp", openvino=("Swish",)),
    OperatorSpec("minimum", "clamp", onnx=("Min",), tflite=("MINIMUM",), openvino=("Minimum",)),
    OperatorSpec("maximum", "clamp", onnx=("Max",), tflite=("MAXIMUM",), openvino=("Maximum",)),
    *_kinds("clamp", "clamp_max", "clamp_min"),
    # other activations, normalisations
    OperatorSpec("softmax", onnx=("Softmax",), tflite=("SOFTMAX",), openvino=("SoftMax",)),
    OperatorSpec("log_softmax", onnx=("LogSoftmax",), tflite=("LOG_SOFTMAX",), openvino=("LogSoftmax",)),
    OperatorSpec("layer_norm", aten=("native_layer_norm",), onnx=("LayerNormalization",), openvino=("MVN",)),
    OperatorSpec("group_norm", aten=("native_group_norm",), onnx=("GroupNormalization",)),
    OperatorSpec("gelu", onnx=("Gelu",), tflite=("GELU",), openvino=("Gelu",)),
    OperatorSpec("sigmoid", onnx=("Sigmoid",), tflite=("LOGISTIC",), openvino=("Sigmoid",)),
    OperatorSpec("tanh", onnx=("Tanh",), tflite=("TANH",), openvino=("Tanh",)),
    # pools and reductions
    OperatorSpec(
        "max_pool", "pool", "input", aten=("max_pool1d", "max_pool2d", "max_pool2d_with_indices"),
        onnx=("MaxPool",), tflite=("MAX_POOL_2D",), openvino=("MaxPool",),
    ),
    OperatorSpec(
        "avg_pool", "pool", "shared", aten=("avg_pool1d", "avg_pool2d"), onnx=("AveragePool",),
        tflite=("AVERAGE_POOL_2D",), openvino=("AvgPool",),
    ),
    OperatorSpec("adaptive_avg_pool2d", "pool", "shared"),
    OperatorSpec(
        "mean", "pool", "own", onnx=("GlobalAveragePool", "ReduceMean"), tflite=("MEAN",), openvino=("ReduceMean",)
    ),
    OperatorSpec("max", "pool", onnx=("GlobalMaxPool", "ReduceMax"), tflite=("REDUCE_MAX",), openvino=("ReduceMax",)),
    OperatorSpec("sum", "pool", onnx=("ReduceSum",), tflite=("SUM",), openvino=("ReduceSum",)),
    *_kinds(
        "pool", "adaptive_avg_pool1d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
        "adaptive_max_pool3d", "amax", "amin", "avg_pool3d", "fractional_max_pool2d", "fractional_max_pool3d",
        "max_pool1d_with_indices", "max_pool3d", "max_pool3d_with_indices",
    ),
    # changes of shape
    OperatorSpec(
        "view", "free", "input", aten=("reshape", "unsafe_view"), onnx=("Reshape",), tflite=("RESHAPE",),
        openvino=("Reshape",),
    ),
    OperatorSpec("flatten", "free", "input", onnx=("Flatten",)),
    OperatorSpec("squeeze", "free", "input", onnx=("Squeeze",), tflite=("SQUEEZE",), openvino=("Squeeze",)),
    OperatorSpec("unsqueeze", "free", "input", onnx=("Unsqueeze",), tflite=("EXPAND_DIMS",), openvino=("Unsqueeze",)),
    # changes of place
    OperatorSpec(
        "permute", "move", "input", aten=("transpose", "t"), onnx=("Transpose",), tflite=("TRANSPOSE",),
        openvino=("Transpose",),
    ),
    OperatorSpec(
        "slice", "move", "input", onnx=("Slice",), tflite=("SLICE", "STRIDED_SLICE"),
        openvino=("Slice", "StridedSlice"),
    ),
    OperatorSpec(
        "pad", "pad", "input", aten=("constant_pad_nd",), onnx=("Pad",), tflite=("PAD", "PADV2"), openvino=("Pad",)
    ),
    OperatorSpec("reflection_pad2d", "pad", tflite=("MIRROR_PAD",)),
    *_kinds(
        "pad", "reflection_pad1d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
        "pad_circular",
    ),
    OperatorSpec(  # Resize and Interpolate have the mode in an attribute
        "upsample_nearest2d", "move", "input", onnx=("Resize",), tflite=("RESIZE_NEAREST_NEIGHBOR",),
        openvino=("Interpolate",),
    ),
    OperatorSpec("upsample_bilinear2d", "move", tflite=("RESIZE_BILINEAR",)),
    OperatorSpec(
        "cat", "move", "shared", aten=("concat",), onnx=("Concat",), tflite=("CONCATENATION",), openvino=("Concat",)
    ),
    OperatorSpec("stack", "move", tflite=("PACK",)),
    OperatorSpec("unbind", "move", tflite=("UNPACK",)),
    OperatorSpec(
        "split", "move", "input", aten=("chunk", "split_with_sizes", "unsafe_chunk", "unsafe_split"), onnx=("Split",),
        tflite=("SPLIT", "SPLIT_V"), openvino=("Split", "VariadicSplit"),
    ),
    OperatorSpec("getitem", "free", "input"),  # one of an operator's several results
    OperatorSpec("index", "move", onnx=("GatherND",), tflite=("GATHER_ND",), openvino=("GatherND",)),
    OperatorSpec("embedding", "move", tflite=("EMBEDDING_LOOKUP",)),  # its table may be 8 bits: `export.embeddings`
    OperatorSpec("index_select", "move", onnx=("Gather",), tflite=("GATHER",), openvino=("Gather",)),
    OperatorSpec(
        "pixel_shuffle", "move", onnx=("DepthToSpace",), tflite=("DEPTH_TO_SPACE",), openvino=("DepthToSpace",)
    ),
    OperatorSpec(
        "pixel_unshuffle", "move", onnx=("SpaceToDepth",), tflite=("SPACE_TO_DEPTH",), openvino=("SpaceToDepth",)
    ),
    OperatorSpec("repeat", "move", onnx=("Tile",), tflite=("TILE",), openvino=("Tile",)),
    *_kinds(
        "move", "channel_shuffle", "copy", "flip", "gather", "index_add", "index_copy",
        "index_fill", "index_put", "native_channel_shuffle", "roll", "scatter", "scatter_add", "select_scatter",
        "slice_scatter", "tile", "unsafe_index", "upsample_bicubic2d", "upsample_bicubic2d_aa",
        "upsample_bilinear2d_aa", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest3d",
        "upsample_nearest_exact1d", "upsample_nearest_exact2d", "upsample_nearest_exact3d", "upsample_trilinear3d",
    ),
    # copies, and changes of number format
    OperatorSpec(
        "clone", "free", "input", aten=("contiguous", "alias", "detach", "lift_fresh_copy"), onnx=("Identity",)
    ),
    OperatorSpec("dropout", "free", "input", aten=("feature_dropout",), onnx=("Dropout",)),
    OperatorSpec("to", "free", aten=("to_copy",), onnx=("Cast",), tflite=("CAST",), openvino=("Convert",)),
    OperatorSpec(
        "quantize", "free", onnx=("QuantizeLinear", "DynamicQuantizeLinear"), tflite=("QUANTIZE",),
        openvino=("FakeQuantize",),
    ),
    OperatorSpec("dequantize", "free", onnx=("DequantizeLinear",), tflite=("DEQUANTIZE",)),
    OperatorSpec("end", "free", openvino=("Parameter", "Result")),
)  # fmt: skip


def _by(spellings: Callable[[OperatorSpec], tuple[str, ...]]) -> Mapping[str, OperatorSpec]:
    found: dict[str, OperatorSpec] = {}
    for row in _ROWS:
        for spelling in spellings(row):
            if spelling in found:
                raise ValueError(f"{spelling} is spelled by {found[spelling].name} and {row.name}")
            found[spelling] = row
    return found


TABLE: Mapping[str, OperatorSpec] = _by(lambda row: (row.name,))
"""Rows by canonical name."""
ATEN: Mapping[str, OperatorSpec] = _by(lambda row: (row.name, *row.aten))
"""Rows by ATen's name, without overload and without leading and trailing underscores."""
ONNX: Mapping[str, OperatorSpec] = _by(lambda row: row.onnx)
"""Rows by ONNX's operator type."""
TFLITE: Mapping[str, OperatorSpec] = _by(lambda row: row.tflite)
"""Rows by the name of TFLite's builtin operator."""
OPENVINO: Mapping[str, OperatorSpec] = _by(lambda row: row.openvino)
"""Rows by the type of OpenVINO's layer."""


def aten_operator(name: str) -> OperatorSpec:
    """Return the row of an ATen operator (``add_``, ``_softmax``); kind ``other`` if the table has none."""
    return ATEN.get(name.strip("_")) or OperatorSpec(name.rstrip("_") or name)


def operator_kind(table: Mapping[str, OperatorSpec], spelling: str) -> OperatorKind:
    """Return the kind of an operator with this spelling in a format."""
    return table[spelling].kind if spelling in table else "other"


def weight_axis(spelling: str) -> int | None:
    """Return the axis of a weight's output channels, by canonical name or a format's spelling; None for no weight."""
    return _AXES.get(spelling)


_AXES: Mapping[str, int] = {spelling: axis for row in _ROWS for spelling, axis in row.weight_axes.items()}
_STANDING: Mapping[OperatorKind, KernelKind] = {"clamp": "other", "scale": "other", "pad": "move", "free": "move"}


def kernel_kind(kind: OperatorKind) -> KernelKind:
    """Return the kind of kernel of an operator that is not fused."""
    return _STANDING.get(kind) or cast("KernelKind", kind)


PROFILE_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"dequant|quant(?!ized?matmul)|^q_|^convert|^cast|reorder", "Quantize"),
    (r"depthwise|dw_?conv|groupconv", "DepthwiseConv"),
    (r"conv", "Conv"),
    (r"fully.?connected|gemm|matmul|inner_?product|dense", "FullyConnected"),
    (r"soft_?max", "Softmax"),
    (r"pool|reduce|mean", "Pool"),
    (r"add|subtract|eltwise", "Add"),
    (r"mul", "Mul"),
    (r"relu|clamp|clip|sigmoid|swish|activation", "Activation"),
    (r"concat", "Concat"),
    (r"reshape|flatten|squeeze|transpose|permute|pad|copy", "Layout"),
)
"""Families of operators in runtimes' own profiles, by the words found in a name in lower case; the first match counts.
Profiles name kernels (``Convolution (NHWC, QC8)``), so that no list of names is complete."""

FAMILY_KERNELS: Mapping[str, KernelKind] = {"Conv": "conv", "DepthwiseConv": "depthwise", "FullyConnected": "dense"}
"""The kind of kernel of families with multiply-adds."""
