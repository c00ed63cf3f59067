"""Base of tasks of picture files with one class each, from folders or lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import PictureSpec
from edgekd.tasks.images.decoding import framed, opened, size_of
from edgekd.tasks.labelled_files import LabelledFiles
from edgekd.tasks.sample_store import SampleDecoder

__all__ = ["LabelledPictures"]


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class LabelledPictures(LabelledFiles):
    """Options shared by tasks of picture files with one class each.

    ``size`` is height and width in pixels, or one number for both; default that of all pictures. ``fit: crop`` takes
    the largest centred part with the size's aspect ratio, ``stretch`` the whole picture.
    """

    size: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None,
        BeforeValidator(_square),
    ] = None
    fit: Literal["stretch", "crop"] = "crop"
    channels: Literal[1, 3] = 3

    def _look(self, data: bytes, path: Path) -> tuple[int, int] | None:
        return size_of(data, path) if self.size is None else None

    def _decoder_for(self, looks: Sequence[tuple[int, int] | None]) -> SampleDecoder:
        spec = self._spec_of(self.size or self._one(looks))

        def decode(data: bytes, path: Path) -> NDArray[np.uint8]:
            return framed(opened(data, path), spec, path)

        return SampleDecoder(self.what, spec, spec.shape, np.uint8, decode)

    def _spec_of(self, size: tuple[int, int]) -> PictureSpec:
        return PictureSpec(size=size, fit=self.fit, mode="RGB" if self.channels == 3 else "L")

    def _picture(self) -> PictureSpec:
        _, *size = self._decoded().shape
        return self._spec_of((size[0], size[1]))

    def _one(self, sizes: Sequence[tuple[int, int] | None]) -> tuple[int, int]:
        found = sorted({size for size in sizes if size is not None}, key=lambda size: size[0] * size[1])
        if len(found) > 1:
            least, most = (f"{height} x {width}" for height, width in (found[0], found[-1]))
            raise ConfigurationError.one(
                f"{self._origin()}: pictures are from {least} to {most} (height x width)",
                "give the size that a model sees: size: 128 in the task, or --input 3x128x128 of edgekd export",
            )
        return found[0]
