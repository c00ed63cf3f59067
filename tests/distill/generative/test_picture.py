from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

from edgekd.distill.generative.picture import PICTURES_FILE, grid, png, write_pictures
from edgekd.tasks._protocol import InputSpec


def read_png(data):
    """Enough of the format to read what has no filters."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, {}
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(name + body),)
        chunks[name], place = body, place + 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape((height, width, 3) if colour == 2 else (height, width))


@pytest.mark.parametrize("shape", [(5, 9), (5, 9, 3)])
def test_what_is_written_is_read_back(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(read_png(png(pixels)), pixels)


def test_other_readers_agree(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    (tmp_path / "it.png").write_bytes(png(pixels))
    assert np.array_equal(np.asarray(image.open(tmp_path / "it.png")), pixels)


def test_a_grid_has_the_images_in_order():
    images = np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 3, 40, 40), np.uint8)
    sheet = grid(images)
    assert sheet.shape == (82, 8 * 42 - 2, 3)
    assert [sheet[0, 42 * column, 0] for column in range(8)] == list(range(8))
    assert [sheet[42, 0, 0], sheet[42, 42, 0], sheet[42, 84, 0]] == [8, 9, 255]


def test_small_images_are_enlarged_and_odd_channels_shown_by_their_first():
    assert grid(np.zeros((64, 1, 8, 8), np.uint8)).shape == (8 * 34 - 2, 8 * 34 - 2)
    assert grid(np.zeros((2, 2, 32, 32), np.uint8)).shape == (32, 66)


def test_the_raw_range_becomes_black_and_white(tmp_path):
    spec = InputSpec(shape=(1, 8, 8), raw_range=(0.0, 16.0))
    write_pictures(tmp_path, torch.tensor([0.0, 16.0]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8), spec)
    sheet = read_png((tmp_path / PICTURES_FILE).read_bytes())
    assert (sheet[0, 0], sheet[0, 34]) == (0, 255)
