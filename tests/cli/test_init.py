from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli.main import main
from edgekd.project import read_project

MODEL = "from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_first_project_is_valid_as_it_is(tmp_path: Path) -> None:
    assert main(["init", "-q"]) == 0
    project = read_project(tmp_path / "project.yaml")
    assert project.target.name == "here"
    assert {limit.metric for limit in project.target.limits} == {"latency.p95", "size.file", "accuracy"}


def test_nothing_is_overwritten_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "project.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "project.yaml").read_text() == "mine"
    assert not (tmp_path / "here.yaml").exists()
    assert main(["init", "--force"]) == 0
    assert (tmp_path / "project.yaml").read_text() != "mine"


def test_a_persons_own_model_is_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    (tmp_path / "my.py").write_text(MODEL)
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "my weights.safetensors")
    images, labels = np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    asked = ["init", "--model", "my.py:build", "--weights", "my weights.safetensors", "--data", "x.npz"]
    assert main(asked) == 0
    assert "edgekd compress project.yaml" in capsys.readouterr().out
    assert read_project(tmp_path / "project.yaml").family.name == "pruned"


@pytest.mark.parametrize(("kind", "export"), [("uint8", "uint8"), ("float32", "float32")])
def test_a_model_gets_the_values_that_export_gives_it(tmp_path: Path, kind: str, export: str) -> None:
    import numpy as np
    from safetensors.torch import save_file
    from torch import nn

    from edgekd.exporting.data import task_for

    images = (np.random.default_rng(0).random((40, 3, 8, 8)) * [[[[9]], [[90]], [[200]]]]).astype(kind)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "x.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    (tmp_path / "my.py").write_text(MODEL)
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "model.safetensors")
    assert main(["init", "--model", "my.py:build", "--data", "x.npz"]) == 0
    project = read_project(tmp_path / "project.yaml")
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    exported = task_for(module, "build", None, tmp_path / "x.npz", (), ()).spec.input
    mine = project.task.spec.input
    assert np.broadcast_to(mine.mean, 3).tolist() == np.broadcast_to(exported.mean, 3).tolist()
    assert np.broadcast_to(mine.std, 3).tolist() == np.broadcast_to(exported.std, 3).tolist()
    assert project.export.input == export  # what the model's values can be


@pytest.mark.slow
def test_pictures_for_a_model_are_read_as_pictures(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "my.py").write_text(MODEL)
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "model.safetensors")
    pictures(tmp_path / "2024")
    lines = [f"2024/{name}/{at}.png,{name}" for name in ("cat", "dog", "owl") for at in range(12)]
    (tmp_path / "1e3.csv").write_text("\n".join(["path,label", *lines]))
    for data in ("2024", "1e3.csv"):
        assert main(["init", "--model", "my.py:build", "--data", data, "--force", "-q"]) == 0
        project = read_project(tmp_path / "project.yaml")
        assert project.task.spec.head.labels == ("cat", "dog", "owl")
        assert project.recipe[0].learning_rate is None  # the default for trained weights


@pytest.mark.parametrize("name", ["2024", "1e3", "yes", "0x1F", "~", "null", "a: b", "it's", "-x", ".5"])
def test_a_name_stays_a_name(name: str) -> None:
    from ruamel.yaml import YAML

    from edgekd.beginning import _scalar

    assert YAML(typ="safe").load(f"data: {_scalar(name)}") == {"data": name}


def test_what_is_not_there_yet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.py").write_text(MODEL)
    assert main(["init", "--model", "my.py:build"]) == 0
    said = capsys.readouterr().out
    assert "put your weights at model.safetensors" in said
    assert "put your data at images.npz" in said


@pytest.mark.parametrize("trained", [True, False])
def test_a_function_that_returns_a_trained_model_needs_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: bool
) -> None:
    seeded = "import torch\nfrom torch import nn\ndef build():\n    torch.manual_seed(0)\n    model = nn.Linear(2, 2)\n"
    load = "    model.load_state_dict({'weight': torch.eye(2), 'bias': torch.ones(2)})\n" if trained else ""
    (tmp_path / "my.py").write_text(f"{seeded}{load}    return model\n")
    assert main(["init", "--model", "my.py:build"]) == 0
    said = capsys.readouterr().out
    assert ("seen:  weights that `my.py:build` returns" in said) is trained
    assert ("put your weights at model.safetensors" in said) is not trained
    assert ("weights:" in (tmp_path / "project.yaml").read_text()) is not trained


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "my.py:nobuild"], "has no function `nobuild`"),
        (["--model", "no.py:build"], "no module `no`"),
        (["--model", "my.py:build", "--weights", "w.pt"], "w.pt"),
        (["--model", "my.py:build", "--weights", "whole.pt"], "state_dict"),
    ],
)
def test_a_model_that_can_not_work_is_refused_at_once(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    (tmp_path / "my.py").write_text(MODEL)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    assert main(["init", *options]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "project.yaml").exists()


@pytest.mark.parametrize("options", [["--model", "my.py"], ["--data", "x.txt"], ["--weights", "w"]])
def test_options_that_do_not_fit_are_usage(options: list[str]) -> None:
    assert main(["init", *options]) == 2


def pictures(folder: Path, each: int = 12, size: tuple[int, int] = (70, 80)) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (folder / name).mkdir(parents=True)
        for at in range(each):
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name / f"{at}.png")


def test_a_folder_of_pictures_begins_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "my pets")
    assert main(["init", "--data", "my pets"]) == 0
    assert "seen:  36 pictures of 3 classes, most about 80 x 70" in capsys.readouterr().out
    project = read_project(tmp_path / "project.yaml")
    assert project.task.spec.input.shape == (3, 64, 64)
    assert project.task.spec.head.labels == ("cat", "dog", "owl")
    assert project.target.accuracy is not None
    assert project.target.accuracy.floor == pytest.approx(0.5)  # a quarter of the way from guessing to all right
    assert (project.export.input, project.family.name) == ("uint8", "resnet")
    (distill,) = project.recipe
    assert (distill.batch_size, distill.learning_rate) == (None, None)  # of few pictures too, by `distill` itself
    assert distill.epochs == distill.views == 400  # few pictures: by steps, within bounds, each seen in many ways
    assert [name for name, _ in distill.augment.parts] == ["mixup"]


def test_a_list_of_pictures_begins_one_too(tmp_path: Path) -> None:
    pictures(tmp_path / "pets", size=(32, 32))
    lines = [f"pets/{name}/{at}.png,{name}" for name in ("cat", "dog", "owl") for at in range(12)]
    (tmp_path / "pets.csv").write_text("\n".join(["path,label", *lines]))
    assert main(["init", "--data", "pets.csv"]) == 0
    assert read_project(tmp_path / "project.yaml").task.spec.input.shape == (3, 32, 32)


def test_floats_are_taken_as_floats(tmp_path: Path) -> None:
    import numpy as np

    rng, labels = np.random.default_rng(0), np.arange(4000) % 4
    images = rng.random((4000, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images[:40] + 1, y_test=labels[:40])
    assert main(["init", "--data", "x.npz"]) == 0
    project = read_project(tmp_path / "project.yaml")
    assert project.export.input == "float32"
    assert project.family.space(project.task.spec)  # twelve pixels are enough for its stages
    (distill,) = project.recipe
    assert (distill.views, distill.augment.parts) == (None, ())  # not of thousands


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ("nowhere", 2, "a folder of pictures, WAV or text files, a .csv or a .npz of arrays"),
        ("empty", 3, "holds neither pictures nor recordings"),
        ("gone.csv", 3, "no such file"),
        ("X.npz", 3, "has the arrays X; needed: x_train"),
    ],
)
def test_data_that_can_not_be_used_is_refused_at_once(
    tmp_path: Path, data: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "X.npz", X=np.zeros(3))
    assert main(["init", "--data", data]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "project.yaml").exists()


def test_a_folder_of_recordings_begins_a_search_on_raw_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    from tests.tasks.tones import tone, write_wav

    for name, hertz in (("low", 300), ("high", 1500)):
        for number in range(10):
            write_wav(tmp_path / "tones" / name / f"{number}.wav", tone(hertz, 0.2 + 0.01 * number, number))
    assert main(["init", "--data", "tones"]) == 0
    assert "20 recordings of 2 classes, 8000 samples a second" in capsys.readouterr().out
    project = read_project(tmp_path / "project.yaml")
    assert project.task.spec.input.shape == (1, 2400)
    assert project.family.name == "dscnn"
    assert {axis.name for axis in project.family.space(project.task.spec).axes} >= {"depth1", "width1"}
    assert np.isfinite(project.task.spec.input.std).all()


def test_columns_of_series_begin_one_too(tmp_path: Path) -> None:
    from tests.tasks.tones import write_waves

    path = write_waves(tmp_path / "waves.csv")
    path.write_text(path.read_text() + "\n40,r0,0.1,0.2,fast")
    assert main(["init", "--data", "waves.csv"]) == 0
    project = read_project(tmp_path / "project.yaml")
    assert project.task.spec.input.shape == (2, 40)
    assert project.family.name == "dscnn"


def test_columns_without_a_label_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "waves.csv").write_text("time,x\n0,1\n")
    assert main(["init", "--data", "waves.csv"]) == 3
    assert "a column `label` and columns of numbers are expected" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["reviews.csv", "texts"])
def test_texts_begin_one_too(tmp_path: Path, data: str) -> None:
    from tests.tasks.reviews import reviews, written

    written(tmp_path, 60)
    for number, (text, label) in enumerate(reviews(60)):
        place = tmp_path / "texts" / label / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (tmp_path / "texts" / "about.txt").write_text("none of them")
    assert main(["init", "--data", data]) == 0
    project = read_project(tmp_path / "project.yaml")
    assert project.task.spec.input.shape == (24,)
    assert project.task.spec.head.labels == ("bad", "good")
    assert [axis.name for axis in project.family.space(project.task.spec).axes] == [
        "depth",
        "heads",
        "mlp_ratio",
        "width",
    ]


def test_columns_that_count_are_no_signal_and_changing_labels_make_windows(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    names = [name for name in "abab" * 3 for _ in range(20 + 5 * (name == "a"))]
    rows = [f"{at},{at / 50},{rng.random()},{name}" for at, name in enumerate(names)]
    (tmp_path / "log.csv").write_text("\n".join([",seconds,ax, label", *rows]))
    assert main(["init", "--data", "log.csv"]) == 0
    task = read_project(tmp_path / "project.yaml").task
    assert task.spec.input.shape == (1, 20)
    assert task.spec.head.labels == ("a", "b")


def test_a_column_that_is_mostly_numbers_is_refused_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{'?' if at == 7 else 0.5 * (at % 3)},{'ab'[at % 2]}" for at in range(40)]
    (tmp_path / "log.csv").write_text("\n".join(["ax,label", *rows]))
    assert main(["init", "--data", "log.csv"]) == 3
    assert "line 9: `ax` is `?`" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [8000, 2000])
def test_a_project_of_short_or_slow_recordings_can_be_built(tmp_path: Path, rate: int) -> None:
    from tests.tasks.tones import tone, write_wav

    for name, hertz in (("low", 100), ("high", 500)):
        for number in range(10):
            write_wav(tmp_path / "clicks" / name / f"{number}.wav", tone(hertz, 0.08, number, rate), rate)
    assert main(["init", "--data", "clicks"]) == 0
    project = read_project(tmp_path / "project.yaml")
    spec = project.task.spec
    assert spec.input.shape == (1, rate // 10)
    arch = project.family.space(spec).at(0)
    assert project.family.build(arch, spec).front.kernels.shape[2] == round(0.032 * rate)
    assert project.teacher.untrained(spec).classes == 2


@pytest.mark.parametrize(
    ("shape", "kind", "expected", "family"),
    [
        ((40, 3, 64), "float32", (3, 64), "dscnn"),
        ((40, 64, 3), "float32", (3, 64), "dscnn"),
        ((40, 64), "float32", (1, 64), "dscnn"),
        ((40, 3), "float32", (1, 3), "dscnn"),
        ((40, 20, 64), "float32", (1, 20, 64), "resnet"),
        ((40, 3, 64), "uint8", (1, 3, 64), "resnet"),
    ],
)
def test_long_and_narrow_arrays_of_floats_are_signals(
    tmp_path: Path, shape: tuple[int, ...], kind: str, expected: tuple[int, ...], family: str
) -> None:
    import numpy as np

    values, labels = (200 * np.random.default_rng(0).random(shape)).astype(kind), np.arange(shape[0]) % 2
    np.savez(tmp_path / "x.npz", x_train=values, y_train=labels, x_test=values[:9], y_test=labels[:9])
    assert main(["init", "--data", "x.npz"]) == 0
    project = read_project(tmp_path / "project.yaml")
    spec = project.task.spec
    assert (spec.input.shape, project.family.name) == (expected, family)
    assert len(project.family.space(spec).axes)
    assert project.teacher.untrained(spec).classes == 2


def test_a_number_of_its_own_for_each_row_is_no_signal_and_no_series(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    names, order = [name for name in "ab" * 12 for _ in range(8)], rng.permutation(192)
    rows = [f"{number},{rng.random()},{name}" for number, name in zip(order, names, strict=True)]
    (tmp_path / "log.csv").write_text("\n".join(["id,ax,label", *rows]))
    assert main(["init", "--data", "log.csv"]) == 0
    assert read_project(tmp_path / "project.yaml").task.spec.input.shape == (1, 8)


def test_class_folders_may_be_links_and_lead_round(tmp_path: Path) -> None:
    from tests.tasks.tones import tone, write_wav

    for name in ("low", "high"):
        for number in range(10):
            write_wav(tmp_path / "elsewhere" / name / f"{number}.wav", tone(300, 0.2, number))
    (tmp_path / "sounds").mkdir()
    for name in ("low", "high"):
        (tmp_path / "sounds" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert main(["init", "--data", "sounds"]) == 0
    assert read_project(tmp_path / "project.yaml").family.name == "dscnn"
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.flac").touch()
    (tmp_path / "songs" / "again").symlink_to(tmp_path / "songs")
    assert main(["init", "--force", "--data", "songs"]) == 3


def test_the_first_picture_ends_the_search_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.tasks import inspect_data

    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    walked = list[str]()
    walk = inspect_data.os.walk
    monkeypatch.setattr(
        inspect_data.os, "walk", lambda *top, **how: (walked.append(found[0]) or found for found in walk(*top, **how))
    )
    assert inspect_data.first_sample(tmp_path) == ".png"
    assert walked == [str(tmp_path), str(tmp_path / "a")]


def test_recordings_for_a_model_are_taken_as_export_takes_them(tmp_path: Path) -> None:
    from tests.tasks.tones import tone, write_wav

    net = "nn.Sequential(nn.Conv1d(1, 4, 9, 4), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))"
    for name, hertz in (("low", 300), ("high", 1500)):
        for number in range(10):
            write_wav(tmp_path / "tones" / name / f"{number}.wav", tone(hertz, 0.2, number))
    assert main(["init", *_own(tmp_path, net), "--data", "tones"]) == 0
    project = read_project(tmp_path / "project.yaml")
    assert project.task.spec.input.mean == (0.0,)
    assert project.task.spec.input.std == (1.0,)
    assert project.export.input == "float32"


def test_texts_for_a_model_have_no_normalisation(tmp_path: Path) -> None:
    from tests.tasks.reviews import written

    written(tmp_path, 60)
    words = _own(tmp_path, "nn.Sequential(nn.EmbeddingBag(512, 8), nn.Linear(8, 2))")
    assert main(["init", *words, "--data", "reviews.csv"]) == 0
    assert read_project(tmp_path / "project.yaml").export.input == "float32"


def _own(folder: Path, made: str) -> list[str]:
    import torch

    from edgekd.code_references import CodeReference

    (folder / "net.py").write_text(f"from torch import nn\ndef build():\n    return {made}\n")
    torch.save(CodeReference.parse("net.py:build", folder).resolve()().state_dict(), folder / "w.pt")
    return ["--model", "net.py:build", "--weights", "w.pt"]


def test_a_project_does_not_lie_in_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cats").mkdir()
    assert main(["init", "--data", "."]) == 2
    assert "runs would be read as data" in capsys.readouterr().err
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert main(["init", "--data", ".."]) == 2
    assert not list((tmp_path / "project").iterdir())
