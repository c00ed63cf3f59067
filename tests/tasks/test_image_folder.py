"""A folder of pictures a class, and a list of them."""

from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import ValidationError

from edgekd.errors import ConfigurationError, Interrupted
from edgekd.tasks import sample_store
from edgekd.tasks._protocol import PictureSpec
from edgekd.tasks.images import labelled_pictures
from edgekd.tasks.images.csv import ImageCsv
from edgekd.tasks.images.decoding import framed, opened, size_of
from edgekd.tasks.images.folder import ImageFolder
from edgekd.tasks.labelled import statistics
from edgekd.testing.contracts.task import TaskContract

CLASSES = ("cat", "dog", "owl")


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Of width and height."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def fill(folder: Path, each: int, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for at in range(each):
            picture(seed + 1000 * number + at).save(folder / name / f"{seed}-{at}.png")
    return folder


def made(root: Path, **options) -> ImageFolder:
    return ImageFolder.model_validate({"root": root, "size": 12, "calibration": 10, **options})


class TestByContent(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        root = fill(tmp_path / "pets", 30)
        return lambda: made(root)


class TestGivenParts(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        for part, each, seed in (("train", 30, 0), ("val", 5, 100), ("test", 6, 200)):
            fill(tmp_path / "pets" / part, each, seed)
        return lambda: made(tmp_path / "pets", channels=1, fit="stretch", per_channel=True)


class TestList(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path):
        return lambda: listed(tmp_path)


def listed(folder: Path, change=lambda lines: lines, **options) -> ImageCsv:
    fill(folder / "pictures", 20)
    lines = ["path,label,split"]
    for name in CLASSES:
        for at in range(20):
            lines.append(f"pictures/{name}/0-{at}.png,{name},{'test' if at < 5 else ''}")
    (folder / "pets.csv").write_text("\n".join(change(lines)) + "\n")
    given = {"file": "pets.csv", "size": 12, "calibration": 6, **options}
    return ImageCsv.model_validate(given, context={"folder": folder})


def counts(task) -> list[int]:
    return [len(task.split(name)) for name in ("train", "validation", "test")]


def test_classes_are_the_folders_and_nothing_is_lost(tmp_path):
    task = made(fill(tmp_path / "pets", 30))
    assert task.spec.head.labels == CLASSES
    assert task.spec.input.shape == (3, 12, 12)
    assert task.spec.input.picture == PictureSpec(size=(12, 12), fit="crop")
    assert counts(task)[2] == 18
    assert sum(len(task.split(name)) for name in ("train", "validation", "test", "calibration")) >= 90
    test = task.split("test")
    assert np.bincount(test.labels).tolist() == [6, 6, 6]


def test_parts_of_their_own_stay_what_they_are(tmp_path):
    root = tmp_path / "pets"
    for part, each, seed in (("train", 30, 0), ("valid", 5, 100), ("test", 6, 200)):
        fill(root / part, each, seed)
    task = made(root)
    assert counts(task)[1:] == [15, 18]
    shutil.copy(root / "test" / "cat" / "200-0.png", root / "train" / "cat" / "copy.png")
    twin = Image.open(root / "valid" / "dog" / "100-1.png")
    twin.save(root / "train" / "dog" / "same-pixels.bmp")
    again = made(root)
    assert again.split("train").digest == task.split("train").digest  # both are left out of training


def test_parts_in_upper_case_are_parts(tmp_path):
    root = tmp_path / "pets"
    for part, each, seed in (("Train", 30, 0), ("Test", 6, 200)):
        fill(root / part, each, seed)
    task = made(root)
    assert task.spec.head.labels == CLASSES
    assert counts(task)[2] == 18


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train/cat", "train/dog", "test/cat", "test/dog", "extra"), r"test, train and `extra` lie side by side"),
        (("Test/cat", "Test/dog", "VAL/cat", "VAL/dog"), "has Test, VAL, and no folder `train`"),
        (("train/cat", "train/dog", "val/cat", "Valid/cat"), "two folders for one part"),
    ],
)
def test_folders_that_may_be_parts_or_classes_are_refused(tmp_path, folders, said):
    root = fill(tmp_path / "pets", 4, classes=folders)
    with pytest.raises(ConfigurationError, match=said):
        _ = made(root).spec


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    assert made(fill(tmp_path / "vehicles", 10, classes=("bus", "train"))).spec.head.labels == ("bus", "train")


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    root = fill(tmp_path / "pets", 5)
    closed = root / "cat" / "closed"
    closed.mkdir()
    listing = os.scandir

    def scandir(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigurationError, match="closed can't be listed: Permission denied"):
        _ = made(root).spec


def test_which_split_a_picture_is_in_does_not_depend_on_its_name(tmp_path):
    root = fill(tmp_path / "pets", 20)
    one = {sample.tobytes() for sample in made(root).split("test").inputs}
    for at, path in enumerate(sorted((root / "cat").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed-{at}.png"))
    assert {sample.tobytes() for sample in made(root).split("test").inputs} == one


def test_statistics_are_those_of_the_pixels(tmp_path):
    for channel in (False, True):
        task = made(fill(tmp_path / "pets", 20), per_channel=channel)
        mean, std = statistics(task.split("train").inputs, channel)
        assert task.spec.input.mean == pytest.approx(mean, rel=1e-5)
        assert task.spec.input.std == pytest.approx(std, rel=1e-5)


def test_no_split_of_the_folder_is_copied(tmp_path):
    task = made(fill(tmp_path / "pets", 20))
    for name in ("validation", "test"):
        assert isinstance(task.split(name).inputs, np.memmap)


def test_the_size_is_that_of_all_pictures_unless_they_differ(tmp_path):
    root = fill(tmp_path / "pets", 10)
    assert made(root, size=None).spec.input.shape == (3, 16, 20)
    picture(1, (40, 30)).save(root / "cat" / "large.png")
    with pytest.raises(ConfigurationError, match=r"from 16 x 20 to 30 x 40 \(height x width\)"):
        _ = made(root, size=None).spec


def test_the_list_of_splits_reads_as_the_same_splits(tmp_path):
    task = made(fill(tmp_path / "pets", 20))
    (tmp_path / "splits.csv").write_text(task.split_list())
    again = ImageCsv.model_validate({"file": tmp_path / "splits.csv", "size": 12, "calibration": 10})
    for name in ("train", "validation", "test"):
        one, other = (each.split(name) for each in (task, again))
        assert {sample.tobytes() for sample in one.inputs} == {sample.tobytes() for sample in other.inputs}


def test_other_files_are_counted_and_passed_over(tmp_path):
    root = fill(tmp_path / "pets", 10)
    for name in ("notes.txt", "cat/Thumbs.db", "dog/.DS_Store", "dog/._1.png"):
        (root / name).write_bytes(b"not a picture")
    (root / "cat" / "more").mkdir()
    picture(77).save(root / "cat" / "more" / "inside.JPEG")
    said = made(root).prepare(lambda *_: None, lambda: False)
    assert said.startswith("31 pictures of 3 classes, 13.1 KiB in ")
    assert said.endswith("; 4 other files ignored")


def test_all_broken_files_are_reported_at_once(tmp_path):
    root = fill(tmp_path / "pets", 10)
    for at in range(25):
        (root / "cat" / f"broken-{at:02}.jpg").write_bytes(b"GIF89a" + bytes(at))
    whole = (root / "dog" / "0-1.png").read_bytes()
    (root / "dog" / "0-1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError) as caught:
        _ = made(root).spec
    problems = [str(problem) for problem in caught.value.problems]
    assert len(problems) == 21
    assert "6 more files can't be read" in problems[-1]
    for at in range(25):
        (root / "cat" / f"broken-{at:02}.jpg").unlink()
    with pytest.raises(ConfigurationError, match=r"0-1\.png can't be read as a picture"):
        _ = made(root).spec


@pytest.mark.parametrize(
    ("classes", "said"),
    [((), "has no folders; a folder for each class is expected"), (("cat",), "has one folder, `cat`")],
)
def test_a_root_without_classes_is_refused(tmp_path, classes, said):
    (tmp_path / "pets").mkdir()
    with pytest.raises(ConfigurationError, match=said):
        _ = made(fill(tmp_path / "pets", 3, classes=classes)).spec


def test_a_class_without_pictures_is_refused(tmp_path):
    (fill(tmp_path / "pets", 5) / "eel").mkdir()
    with pytest.raises(ConfigurationError, match=r"eel holds no picture"):
        _ = made(tmp_path / "pets").spec


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    fill(tmp_path / "pets" / "train", 5)
    fill(tmp_path / "pets" / "test", 5, 50, (*CLASSES, "eel"))
    with pytest.raises(ConfigurationError, match="the class `eel` has pictures for test, and none for training"):
        _ = made(tmp_path / "pets").spec


def test_classes_may_be_in_the_teachers_order(tmp_path):
    root = fill(tmp_path / "pets", 10)
    one, other = made(root), made(root, labels=("owl", "cat", "dog"))
    assert other.spec.head.labels == ("owl", "cat", "dog")
    assert np.array_equal((one.split("test").labels + 1) % 3, other.split("test").labels)
    with pytest.raises(ConfigurationError, match="the class `owl`, which `labels` doesn't name"):
        _ = made(root, labels=("cat", "dog")).spec


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    root = fill(tmp_path / "digits", 6, classes=tuple(map(str, range(11))))
    assert made(root).spec.head.labels == tuple(map(str, range(11)))


def saved(image: Image.Image, folder: Path, name: str, **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def read(path: Path, **spec) -> np.ndarray:
    given = {"size": (16, 20), "fit": "stretch", **spec}
    return framed(opened(path.read_bytes(), path), PictureSpec(**given), path)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    path = saved(picture(0), tmp_path, "turned.png", exif=exif)
    expected = np.asarray(picture(0).rotate(-90, expand=True)).transpose(2, 0, 1)
    assert np.array_equal(read(path, size=(20, 16)), expected)
    assert np.array_equal(read(path, orientation="stored"), np.asarray(picture(0)).transpose(2, 0, 1))
    assert made(fill(tmp_path / "pets", 8), size=None).spec.input.shape == (3, 16, 20)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_pictures_of_every_mode_are_read(tmp_path, mode):
    grey = picture(0).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = (grey if mode in ("L", "LA") else picture(0)).convert(mode)
    path = saved(image, tmp_path, "picture.tif" if mode == "CMYK" else "picture.png")
    colour, single = read(path), read(path, mode="L")
    assert colour.shape == (3, 16, 20)
    assert single.shape == (1, 16, 20)
    if mode in ("L", "LA", "I;16"):
        assert np.array_equal(colour, np.stack([np.asarray(grey)] * 3))
        assert np.array_equal(single[0], np.asarray(grey))
    if mode == "RGBA":
        assert np.array_equal(colour, np.asarray(picture(0)).transpose(2, 0, 1))


def test_floats_are_refused(tmp_path):
    path = saved(picture(0).convert("F"), tmp_path, "floats.tif")
    with pytest.raises(ConfigurationError, match="a picture of floats"):
        read(path)


def odd(kind: str) -> tuple[str, bytes]:
    """A file's name and content of pictures that Pillow opens and then stumbles over."""
    stream = io.BytesIO()
    if kind == "exif":
        picture(0).save(stream, "PNG", exif=b"Exif\x00\x00JUNKJUNKJUNK")
        return "odd.png", stream.getvalue()
    if kind == "lab":  # Pillow has no way from it to grey
        Image.new("LAB", (8, 8)).save(stream, "TIFF")
        return "odd.tif", stream.getvalue()
    picture(0, (60, 60)).save(stream, "PNG")
    return "odd.png", stream.getvalue()


@pytest.mark.parametrize("size", [12, None], ids=["a size", "that of the pictures"])
@pytest.mark.parametrize("kind", ["exif", "lab", "bomb"])
def test_a_picture_that_pillow_stumbles_over_is_named(tmp_path, monkeypatch, kind, size):
    if kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # of twice as many Pillow raises
    root = fill(tmp_path / "pets", 10)
    for other in root.rglob("*.png"):
        picture(int(other.stem[2:]), (8, 8)).save(other)
    name, data = odd(kind)
    (root / "cat" / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match=rf"{name} can't be read as a picture"):
        made(root, size=size, channels=1).prepare(lambda *_: None, lambda: False)


def test_a_crop_is_the_middle_and_a_stretch_is_all(tmp_path):
    path = saved(picture(0, (60, 20)), tmp_path, "wide.png")
    crop, stretch = read(path, size=(20, 20), fit="crop"), read(path, size=(20, 20))
    assert np.array_equal(crop, np.asarray(picture(0, (60, 20)).crop((20, 0, 40, 20))).transpose(2, 0, 1))
    assert not np.array_equal(stretch, crop)
    again = ImageOps.fit(picture(0, (60, 20)), (12, 12), Image.Resampling.BILINEAR)
    assert np.array_equal(read(path, size=(12, 12), fit="crop"), np.asarray(again).transpose(2, 0, 1))


def decoded(monkeypatch) -> list[Path]:
    """Files that are decoded from here on."""
    calls = list[Path]()
    was = labelled_pictures.framed
    monkeypatch.setattr(
        labelled_pictures, "framed", lambda image, spec, path: calls.append(path) or was(image, spec, path)
    )
    return calls


def test_pictures_are_decoded_once(tmp_path, monkeypatch):
    root, calls = fill(tmp_path / "pets", 20), decoded(monkeypatch)
    one = made(root).spec
    assert len(calls) == 60
    assert made(root).spec == one
    made(root, test=0.3, validation=0.3).split("train")  # another order of the same pictures
    assert len(calls) == 60
    picture(9999).save(root / "cat" / "new.png")
    made(root).split("train")
    assert [path.name for path in calls[60:]] == ["new.png"]


def test_a_stopped_decoding_is_gone_on_with(tmp_path, monkeypatch):
    root, asked = fill(tmp_path / "pets", 20), list[int]()
    with pytest.raises(Interrupted, match="stopped after 40 of 60 files"):  # asked before each of 60 files too
        made(root).prepare(lambda *_: None, lambda: asked.append(1) or len(asked) > 60 + 40)
    calls = decoded(monkeypatch)
    fresh = made(root)
    mean, _ = statistics(fresh.split("train").inputs, per_channel=False)
    assert fresh.spec.input.mean == pytest.approx(mean, rel=1e-5)
    assert len(calls) == 20


def test_only_one_version_of_a_folder_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = fill(tmp_path / "pets", 20)
    made(root).split("train")
    picture(9999).save(root / "cat" / "new.png")
    kept = made(root).split("test").inputs
    made(root, test=0.3).split("train")
    assert len(list((tmp_path / "cache").glob("edgekd/pictures/*/*/pixels"))) == 1
    assert kept.sum() > 0  # still there for whoever has it open


def test_sources_that_nobody_reads_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    old, read, new = (fill(tmp_path / name, 20) for name in ("old", "read", "new"))
    for root in (old, read):
        _ = made(root).spec
    long_ago = time.time() - 31 * 24 * 3600
    for stamp in (tmp_path / "cache").glob("edgekd/pictures/*/read"):
        os.utime(stamp, (long_ago, long_ago))
    _ = made(read).spec
    _ = made(new).spec
    assert len(list((tmp_path / "cache").glob("edgekd/pictures/*/*/pixels"))) == 2
    assert made(read).split("train").inputs.sum() > 0


def test_a_cut_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = fill(tmp_path / "pets", 20)
    whole = made(root).split("train").inputs.copy()
    (pixels,) = (tmp_path / "cache").glob("edgekd/pictures/*/*/pixels")
    pixels.write_bytes(pixels.read_bytes()[:1000])
    assert np.array_equal(made(root).split("train").inputs, whole)


def damaged_facts(version: Path) -> None:
    (version / "facts.npy").write_bytes(b"torn")


def shorter_facts(version: Path) -> None:
    np.save(version / "facts.npy", np.load(version / "facts.npy")[:-1])


def changed_pixels(version: Path) -> None:
    data = bytearray((version / "pixels").read_bytes())
    data[1000] ^= 1
    (version / "pixels").write_bytes(data)


@pytest.mark.parametrize("damage", [damaged_facts, shorter_facts, changed_pixels])
@pytest.mark.parametrize("more", [False, True], ids=["the same pictures", "one more"])
def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch, damage, more):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = fill(tmp_path / "pets", 20)
    _ = made(root).spec
    (pixels,) = (tmp_path / "cache").glob("edgekd/pictures/*/*/pixels")
    damage(pixels.parent)
    monkeypatch.setattr(sample_store, "_checked", set())  # as another process
    if more:
        picture(9999).save(root / "cat" / "new.png")
    found = made(root)
    kept = {part: found.split(part).inputs.copy() for part in ("train", "test")}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    assert all(np.array_equal(made(root).split(part).inputs, inputs) for part, inputs in kept.items())


def test_kept_pixels_are_checked_once_in_a_process(tmp_path, monkeypatch):
    root, reported = fill(tmp_path / "pets", 20), list[str]()
    made(root).prepare(lambda *_: None, lambda: False)
    monkeypatch.setattr(sample_store, "_checked", set())
    for _ in range(2):
        made(root).prepare(lambda done, total, note: reported.append(note), lambda: False)
    assert reported.count("checking what is decoded already") == 2  # at its start and at its end


def test_a_picture_that_changes_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    root = fill(tmp_path / "pets", 10)
    path = root / "cat" / "0-3.png"
    was = sample_store.stored_samples

    def meanwhile(*given):
        picture(777).save(path)
        return was(*given)

    monkeypatch.setattr("edgekd.tasks.labelled_files.stored_samples", meanwhile)
    with pytest.raises(ConfigurationError, match=r"0-3\.png changed while it was read"):
        _ = made(root).spec


@pytest.mark.slow
def test_a_picture_in_two_parts_does_not_copy_the_others(tmp_path):
    root = tmp_path / "pets"
    for part, each, seed in (("train", 30, 0), ("val", 5, 100), ("test", 6, 200)):
        fill(root / part, each, seed)
    before = made(root).split("train").digest
    shutil.copy(root / "test" / "cat" / "200-0.png", root / "train" / "cat" / "0-00.png")
    train = made(root).split("train")
    assert train.digest == before
    assert isinstance(train.inputs, np.memmap)


def test_progress_counts_pictures(tmp_path):
    reported = list[tuple[int, int, str]]()
    made(fill(tmp_path / "pets", 20)).prepare(lambda *at: reported.append(at), lambda: False)
    assert reported[0] == (0, 60, "reading the files")
    assert reported[-1] == (60, 60, "decoding, 25.3 KiB to keep")


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (lambda lines: ["file,class", *lines[1:]], 1, "the columns are file, class; path and label are expected"),
        (lambda lines: [*lines, "pictures/cat/gone.png,cat,"], 62, "no such file"),
        (lambda lines: [*lines, lines[3]], 62, r"0-2\.png is on line 4 already"),
        (lambda lines: [*lines, "a.png,,"], 62, "`label` is empty"),
        (lambda lines: [*lines, "a.png,cat,dev"], 62, "split is `dev`"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, change, line, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        _ = listed(tmp_path, change).spec
    assert caught.value.problems[0].place.line == line


def test_all_wrong_lines_are_reported_at_once(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        _ = listed(tmp_path, lambda lines: [*lines, *(f"gone-{at}.png,cat," for at in range(30))]).spec
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].message == "10 more lines are wrong"


@pytest.mark.parametrize("options", [{"size": 0}, {"fit": "pad"}, {"test": 1.5}, {"layout": "nchw"}, {"channels": 4}])
def test_wrong_options_are_refused(tmp_path, options):
    with pytest.raises(ValidationError):
        made(fill(tmp_path / "pets", 2), **options)


def test_training_and_testing_are_parts(tmp_path):
    fill(tmp_path / "brain" / "Training", 4)
    fill(tmp_path / "brain" / "Testing", 2, seed=50)
    task = made(tmp_path / "brain")
    assert task.spec.head.labels == CLASSES
    assert len(task.split("test")) == 2 * len(CLASSES)


def test_what_python_writes_beside_a_module_is_no_class(tmp_path):
    fill(tmp_path, 4)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "my.cpython-311.pyc").touch()
    assert made(tmp_path).spec.head.labels == CLASSES


def test_pictures_behind_a_link_are_of_the_class_and_a_link_that_leads_round_ends(tmp_path):
    fill(tmp_path / "elsewhere", 3, seed=70, classes=("more",))
    root = fill(tmp_path / "root", 4)
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "cat" / "round").symlink_to(root / "cat")
    assert sum(name == "cat" for files in made(root).listed().parts.values() for _, name in files) == 7


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_the_size_of_a_picture_that_lies_on_its_side_is_that_of_the_picture(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"side.{suffix}"
    picture(0, (20, 16)).save(path, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(path))
    assert size_of(path.read_bytes(), path) == (shown.height, shown.width) == (20, 16)
