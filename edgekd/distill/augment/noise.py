"""`noise`: Gaussian noise on every value, given as a share of the raw range or as a signal-to-noise ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, PositiveFloat, model_validator
from pydantic_core import PydanticCustomError

from edgekd.distill.augment._protocol import Bound, PixelAugmentation
from edgekd.distill.augment.box import ascending
from edgekd.distill.augment.random import many_normals, uniform
from edgekd.distill.augment.raw import per_sample, rounded, sample_variances

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Noise"]


def _one_as_both(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


class Noise(PixelAugmentation, Bound):
    """Gaussian noise.

    ``share``: standard deviation over the raw range; ``snr_db``: 10 log10(signal / noise) in decibels.

    The signal is the sample's variance; with ``snr_db: [lowest, highest]`` the ratio in decibels is drawn uniformly.
    Integers are rounded and clipped to the raw range; floats are not.
    """

    shorthand: ClassVar[str | None] = "share"
    moves: ClassVar[bool] = False

    share: PositiveFloat | None = None
    snr_db: Annotated[tuple[float, float], AfterValidator(ascending), BeforeValidator(_one_as_both)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.share is None) == (self.snr_db is None):
            raise PydanticCustomError("noise", "give one of share and snr_db, for example {snr_db: 20}")
        return self

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the batch (N, ...) with independent noise for each sample."""
        import torch

        noise = torch.from_numpy(many_normals(seed, "noise", indices, batch[0].numel())).reshape(batch.shape)
        noisy = batch.float() + noise * per_sample(self._deviations(batch, indices, seed), batch)
        if not batch.dtype.is_floating_point:
            noisy = noisy.clamp(*self.input.raw_range)
        return rounded(noisy, batch.dtype)

    def _deviations(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """Return the standard deviation of the noise in raw units (N,)."""
        low, high = self.input.raw_range
        if self.snr_db is None:
            return np.full(len(indices), (self.share or 0.0) * (high - low))
        ratio = 10 ** (uniform(seed, "noise.snr", indices, *self.snr_db) / 10)
        return np.asarray(np.sqrt(sample_variances(batch) / ratio), np.float64)
