"""A folder of pictures to a certified file, which Pillow and a runtime score as the certificate says."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]

CLASSES = ("across", "down")


def draw(folder: Path, each: int, seed: int) -> None:
    """JPEGs of two classes and many sizes, stripes one way or the other, some of them turned by their EXIF."""
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for at in range(each):
            height, width = rng.integers(24, 60, 2)
            along = np.arange(width)[None, :, None] if name == "across" else np.arange(height)[:, None, None]
            pixels = 128 + 60 * np.sin(along * 0.9 + rng.random() * 6) + rng.normal(0, 30, (height, width, 3))
            image, exif = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), Image.Exif()
            if at % 4 == 0:
                image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
            image.save(folder / name / f"{at}.jpg", quality=90, exif=exif)


def prepared(path: Path, stated: dict[str, Any]) -> np.ndarray:
    """A picture as the model takes it, by what preprocess.json says alone."""
    spec = stated["picture"]
    assert (spec["orientation"], spec["fit"], spec["resampling"]) == ("exif", "crop", "bilinear")
    image = ImageOps.exif_transpose(Image.open(path)).convert(spec["mode"])
    image = ImageOps.fit(image, (spec["size"][1], spec["size"][0]), Image.Resampling.BILINEAR)
    assert stated["input"]["steps"] == ["order the axes as batch, height, width, channel"]
    return np.asarray(image, stated["input"]["dtype"])[None]


def begin_briefly(edgekd) -> None:
    """The project that `init --data` writes, with the views and mixtures of few pictures, for a short search."""
    done = edgekd("init", "--data", "stripes", "--force")
    assert done.returncode == 0, done.stderr
    project, target = edgekd.folder / "project.yaml", edgekd.folder / "here.yaml"
    text = re.sub(r"epochs: \d+", "epochs: 2", project.read_text()).replace("width: 32", "width: 16")
    assert "views: " in text
    assert "mixup: 1" in text
    for old, new in (
        ("family: resnet", "family: resnet\n  stages: 2"),
        ("{width: [8, 32], depth: [1, 2]}", "{width: [8, 16], depth: [1, 1]}"),
        ("budget: 30 min", "budget: 1 h, trials: 2, finalists: 1, reference_archs: 1, batch: 2"),
        ("\nsearch:", "  - quantize: {precision: int8}\n\nsearch:"),
    ):
        assert old in text
        text = text.replace(old, new)
    edgekd.write("project.yaml", text)
    text = re.sub(r"backends: \[.*?\]", "backends: [onnxruntime/cpu]", target.read_text()).replace("5 ms", "100 ms")
    edgekd.write("here.yaml", re.sub(r"accuracy: .*", "", text))  # two epochs are worth little


def test_the_file_scores_on_the_pictures_as_its_certificate_says(edgekd):
    import onnxruntime

    draw(edgekd.folder / "stripes" / "train", 60, 0)
    draw(edgekd.folder / "stripes" / "test", 40, 1)
    begin_briefly(edgekd)
    done = edgekd("search", "project.yaml", "--run", "run")
    assert done.returncode in (0, 6), done.stderr  # a busy machine may leave the verdict open
    assert "pictures   200 pictures of 2 classes, 600 KiB in " in done.stderr
    bundle = edgekd.folder / "run" / "bundle"
    certificate, stated = (json.loads((bundle / name).read_text()) for name in ("certificate.json", "preprocess.json"))
    session = onnxruntime.InferenceSession(bundle / certificate["model"])
    right = 0
    files = sorted((edgekd.folder / "stripes" / "test").glob("*/*.jpg"))
    with (edgekd.folder / "run" / "splits.csv").open() as listed:
        assert sorted(row["path"] for row in csv.DictReader(listed) if row["split"] == "test") == list(map(str, files))
    for path in files:
        (logits,) = session.run(None, {session.get_inputs()[0].name: prepared(path, stated)})
        right += stated["output"]["labels"][int(logits[0].argmax())] == path.parent.name
    assert right / len(files) == pytest.approx(certificate["accuracy"]["value"])
    edgekd.begin = [edgekd.begin[0], "run/bundle/example.py"]
    shown = edgekd(str(files[0]))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() in {f"class {name}" for name in CLASSES}
