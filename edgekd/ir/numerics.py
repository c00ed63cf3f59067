"""Numerics as data: storage and arithmetic of tensors. A precision is a named preset."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, NamedTuple

from edgekd.artefacts import Format

__all__ = ["A8", "A16", "BF16", "F16", "F32", "W4", "W8", "Precision", "Scheme", "TensorType"]


class TensorType(NamedTuple):
    """Storage type of a tensor's values.

    Integers are signed. They have one scale for the tensor, or one for each output channel; symmetric ones have zero
    point 0 and don't use the lowest integer.
    """

    kind: Literal["float", "bfloat", "int"]
    bits: int
    per_channel: bool = False
    symmetric: bool = False

    @property
    def is_integer(self) -> bool:
        """True if values are integers with a scale."""
        return self.kind == "int"

    @property
    def highest(self) -> int:
        """Highest integer."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def lowest(self) -> int:
        """Lowest integer."""
        return -self.highest - (not self.symmetric)


F32, F16, BF16 = TensorType("float", 32), TensorType("float", 16), TensorType("bfloat", 16)
W8 = TensorType("int", 8, per_channel=True, symmetric=True)
W4 = TensorType("int", 4, per_channel=True, symmetric=True)
A8 = TensorType("int", 8)
A16 = TensorType("int", 16, symmetric=True)


class Scheme(NamedTuple):
    """Numerics of weights and of activations (values between two operators at run time).

    ``quantized``: when activations become integers: ``never``, ``dynamic`` (at run time, by their actual range; stored
    in float) or ``static`` (by calibrated ranges). ``linear``: storage of linear layers' weights, if it differs.
    """

    weights: TensorType
    activations: TensorType
    quantized: Literal["never", "dynamic", "static"] = "never"
    linear: TensorType | None = None


class Precision(str, Enum):
    """Named scheme, ordered from most to least faithful to the trained student.

    A new one needs its row in ``_PRESETS``, below, and in `edgekd.ir.shipped_backends` the backends that have it.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BF16 = "bf16"
    INT8_WEIGHTS = "int8-weights"
    INT16X8 = "int16x8"
    DYNAMIC_INT8 = "dynamic-int8"
    INT8 = "int8"
    INT4_WEIGHTS = "int4-weights"

    @property
    def scheme(self) -> Scheme:
        """Scheme of weights and activations."""
        return _PRESETS[self].scheme

    @property
    def weights(self) -> TensorType:
        """Storage type of weights."""
        return self.scheme.weights

    @property
    def activations(self) -> TensorType:
        """Storage type of values between two operators at run time."""
        return self.scheme.activations

    @property
    def least_weight_bits(self) -> int:
        """Fewest bits that a weight is stored in."""
        return min(kind.bits for kind in (self.scheme.weights, self.scheme.linear) if kind is not None)

    @property
    def is_static(self) -> bool:
        """True if activations are integers with calibrated ranges; then there is an integer reference."""
        return self.scheme.quantized == "static"

    @property
    def fidelity(self) -> int:
        """Rank of faithfulness to the trained student; higher is closer."""
        return -list(Precision).index(self)

    def arithmetic(self, file_format: Format) -> str:
        """Describe storage and arithmetic of a file of this precision. Formats differ at dynamic-int8."""
        return _PRESETS[self].arithmetic.get(file_format, _PRESETS[self].elsewhere)


class _Preset(NamedTuple):
    scheme: Scheme
    elsewhere: str  # the arithmetic, in words
    arithmetic: Mapping[Format, str] = {}  # where a format's files compute otherwise


_PRESETS: Mapping[Precision, _Preset] = {
    Precision.FLOAT32: _Preset(Scheme(F32, F32), "weights and arithmetic in 32-bit float"),
    Precision.FLOAT16: _Preset(Scheme(F16, F32), "weights stored in 16 bits, computed in float"),
    Precision.BF16: _Preset(Scheme(F16, BF16), "weights stored in 16 bits, computed in bfloat16 where the CPU can"),
    Precision.INT8_WEIGHTS: _Preset(Scheme(W8, F32), "weights stored in 8 bits, computed in float"),
    Precision.INT16X8: _Preset(Scheme(W8, A16, "static"), "weights in 8 bits, activations in 16"),
    Precision.DYNAMIC_INT8: _Preset(
        Scheme(W8, F32, "dynamic"),
        "weights stored in 8 bits; linear layers quantize their inputs to 8 bits at run time, "
        "convolutions compute in float",
        {Format.TFLITE: "weights stored in 8 bits, activations quantized to 8 bits at run time"},
    ),
    Precision.INT8: _Preset(Scheme(W8, A8, "static"), "weights and activations in 8 bits"),
    Precision.INT4_WEIGHTS: _Preset(
        Scheme(W8, F32, "dynamic", linear=W4),
        "weights of linear layers stored in 4 bits, their inputs quantized to 8 bits at run time; weights of "
        "convolutions stored in 8 bits, computed in float",
        {
            Format.TFLITE: "weights of linear layers stored in 4 bits, others in 8; activations quantized to 8 bits "
            "at run time"
        },
    ),
}
