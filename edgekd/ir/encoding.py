"""Integer encodings of tensors, and the annotations of a student that contain them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from edgekd.ir.numerics import Precision
from edgekd.records import Extended, Record

__all__ = ["UNPACKING", "Annotations", "Encoding"]

UNPACKING = "edgekd_inputs"
"""Path of the submodule that parts packed samples of several inputs; exported files have none of its operators."""


class Encoding(Record):
    """Integer encoding of a tensor: ``q = round(x / scale) + zero_point``, clamped to ``bits``.

    ``scale`` and ``zero_point`` have one value, or one for each channel along ``axis``. Zero points are for signed
    storage (-128..127 at 8 bits); an exporter that stores unsigned adds 128.
    """

    bits: int
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    limit: int | None = None  # largest magnitude of integers; of weights 63 keeps x86 without VNNI from saturating

    @property
    def lowest(self) -> int:
        """Lowest integer."""
        return -self.limit if self.limit is not None else -int(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """Highest integer."""
        return self.limit if self.limit is not None else int(2 ** (self.bits - 1)) - 1


class Annotations(Extended):
    """Compression decisions that a student's module does not show. Empty for a float32 student.

    Weights are keyed by parameter name (``stem.conv.weight``); activations by the module path and operator of the
    exported graph, ``path:operator`` with ``.n`` if one module calls it more than once (``blocks.0:add``), and
    ``input`` for the input. Names refer to the student after BatchNorm folding.

    ``float_operators`` are the keys of a static int8 student's operators that compute in float (float islands): their
    inputs are dequantized, and their results are quantized for integer operators.
    """

    added: ClassVar[frozenset[str]] = frozenset({"float_operators"})

    precision: Precision = Precision.FLOAT32
    weights: Mapping[str, Encoding] = {}
    activations: Mapping[str, Encoding] = {}
    float_operators: tuple[str, ...] = ()
    calibration: str = ""  # how the activations' ranges were found, in words

    @property
    def in_float(self) -> str:
        """Operators that compute in float, counted by kind: ``layer_norm 5, add 4``; empty if there are none."""
        computing = [key for key in self.float_operators if not key.startswith(f"{UNPACKING}:")]
        kinds = Counter(key.rpartition(":")[2].partition(".")[0] for key in computing)
        return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
