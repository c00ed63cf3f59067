from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekd import search_path
from edgekd.agent.fingerprint import _EXTENSIONS
from edgekd.cli.main import main
from edgekd.devices.catalogue import open_device
from edgekd.errors import ConfigurationError, MissingError, UnknownName
from edgekd.ir.backends import BACKENDS
from edgekd.records import Record
from edgekd.targets.catalogue import device_names, load_device_facts, load_target, target_names
from edgekd.targets.facts import DeviceFacts, Fact, read_facts
from edgekd.targets.listing import list_devices, list_targets, show_target
from edgekd.targets.writing import installed_backends, write_target


def test_every_shipped_target_is_valid_and_names_a_described_device() -> None:
    names = {path.stem for path in search_path.shipped("targets").glob("*.yaml")}
    assert {"this-computer", "pi5-30fps"} <= names <= set(target_names())
    for name in names:
        assert load_target(name).device in device_names()


def test_ten_targets_over_eight_boards_and_phones() -> None:
    targets = [load_target(path) for path in sorted(search_path.shipped("targets").glob("*.yaml"))]
    described = {path.stem for path in search_path.shipped("devices").glob("*.yaml")}
    assert len(targets) >= 10
    assert {target.device for target in targets} == described
    assert len(described - {"this-computer"}) >= 8


@pytest.mark.parametrize("path", sorted(search_path.shipped("devices").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_device_reads_and_gives_its_sources(path: Path) -> None:
    facts = read_facts(path)
    given = [getattr(facts, field) for field in DeviceFacts.model_fields]
    found = [value for value in given if isinstance(value, Fact)]
    assert all(fact.source.startswith("https://") for fact in found)
    assert found or path.stem == "this-computer"
    if facts.extensions is not None:  # as a probe of the device would name and order them
        names = facts.extensions.value
        assert names == tuple(name for name in _EXTENSIONS if name in names)


def test_this_computer_asks_nothing() -> None:
    assert load_target("this-computer").limits == ()


def test_every_fact_of_every_device_has_a_public_source() -> None:
    for name in device_names():
        facts = load_device_facts(name)
        for field in DeviceFacts.model_fields:
            value = getattr(facts, field)
            if field not in ("schema_", "title", "connection") and value is not None:
                assert isinstance(value, Fact)
                assert value.source.startswith("https://"), (name, field)


def test_a_fact_without_a_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "board.yaml").write_text(
        "schema: edgekd.device/1\ntitle: Board\nsoc: {value: Chip, source: somebody said so}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_device_facts("board", tmp_path)
    assert caught.value.problems[0].place.field == "soc.source"


def test_the_nearest_shelf_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "schema: edgekd.target/1\nextends: this-computer\nthreads: {}\n"
    for folder, threads in ((tmp_path, 2), (tmp_path / "targets", 3), (tmp_path / "here" / "targets", 4)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.yaml").write_text(text.format(threads))
    monkeypatch.chdir(tmp_path / "here")
    assert load_target("mine").threads == 4
    assert load_target("mine", tmp_path).threads == 2
    (tmp_path / "mine.yaml").unlink()
    assert load_target("mine", tmp_path).threads == 3


def test_a_device_nobody_can_reach_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nothing says how to reach it") as missing:
        open_device("raspberry-pi-5")
    assert "devices/raspberry-pi-5.yaml" in missing.value.remedy
    advised = re.findall("`([^`]*)`", missing.value.remedy)
    (tmp_path / "devices").mkdir()
    mine = tmp_path / "devices" / "raspberry-pi-5.yaml"
    mine.write_text("\n".join(advised))
    assert open_device("raspberry-pi-5", tmp_path).name == "raspberry-pi-5"
    mine.write_text("\n".join(advised[:2]))
    with pytest.raises(MissingError) as missing:
        open_device("raspberry-pi-5", tmp_path)
    assert missing.value.remedy.startswith("give it a `connection: ")


def test_an_unknown_device_offers_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean `raspberry-pi-5`"):
        open_device("rasberry-pi-5")


def test_a_connection_that_is_wrong_is_placed(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    board = tmp_path / "devices" / "board.yaml"
    for connection, field in (("3", "connection"), ("{kind: locl}", "connection.kind")):
        board.write_text(f"schema: edgekd.device/1\ntitle: Board\nconnection: {connection}\n")
        with pytest.raises(ConfigurationError) as caught:
            open_device("board", tmp_path)
        assert (caught.value.problems[0].place.line, caught.value.problems[0].place.field) == (3, field)


def test_constructing_this_computer_touches_nothing() -> None:
    assert open_device("this-computer").name == "this-computer"


def test_a_new_target_is_valid_as_it_is(tmp_path: Path) -> None:
    path = write_target("mine", tmp_path, "this-computer")
    target = load_target(path)
    assert [str(backend) for backend in target.backends] == list(installed_backends())
    assert set(installed_backends()) <= set(BACKENDS)
    filled = path.read_text().replace("# budgets:", "budgets:").replace("#   ", "  ").replace("# accuracy", "accuracy")
    path.write_text(filled)
    assert [limit.metric for limit in load_target(path).limits] == [
        "latency.p95",
        "memory.model",
        "size.file",
        "accuracy",
    ]


@pytest.mark.parametrize("answer", [list_targets, list_devices, lambda: show_target("pi5-30fps")])
def test_answers_fit_a_screen_and_say_their_schema(answer: object) -> None:
    found = answer()  # type: ignore[operator]
    assert isinstance(found, Record)
    assert all(len(line) <= 100 for line in found.lines())  # type: ignore[attr-defined]
    assert '"schema":"edgekd.' in found.model_dump_json(by_alias=True)


BOARD = "schema: edgekd.device/1\nextends: raspberry-pi-5\n"


def test_a_device_file_says_how_the_shipped_board_is_reached(tmp_path):
    shelf = tmp_path / "devices"
    shelf.mkdir()
    (shelf / "raspberry-pi-5.yaml").write_text(BOARD + "connection: {kind: ssh, host: my-board}\n")
    (shelf / "mine.yaml").write_text(
        BOARD + "title: Mine\nmemory: {value: [8 GiB], source: https://example.org/mine}\n"
    )
    device = open_device("raspberry-pi-5", tmp_path)
    assert (device.name, device.host) == ("raspberry-pi-5", "my-board")
    mine, shipped = load_device_facts("mine", tmp_path), load_device_facts("raspberry-pi-5")
    assert (mine.title, mine.soc, mine.l3) == ("Mine", shipped.soc, shipped.l3)
    assert mine.memory.source == "https://example.org/mine"  # never a value with another one's source
    assert load_device_facts("raspberry-pi-5", tmp_path).title == shipped.title


def test_a_connection_is_taken_over_whole(tmp_path):
    shelf = tmp_path / "devices"
    shelf.mkdir()
    limited = "connection: {kind: local, limits: {cores: 1}}\n"
    (shelf / "half.yaml").write_text(f"schema: edgekd.device/1\ntitle: Half\n{limited}")
    (shelf / "other.yaml").write_text("schema: edgekd.device/1\nextends: half\nconnection: {kind: ssh, host: a}\n")
    (shelf / "same.yaml").write_text("schema: edgekd.device/1\nextends: half\n")
    (shelf / "wrong.yaml").write_text("schema: edgekd.device/1\nextends: half\nconnection: {kind: ssh, hots: a}\n")
    assert open_device("other", tmp_path).host == "a"
    assert open_device("same", tmp_path).name == "same"
    with pytest.raises(ConfigurationError, match=r"wrong.yaml:3:.*hots"):
        open_device("wrong", tmp_path)


def test_devices_that_extend_each_other_in_a_circle(tmp_path):
    shelf = tmp_path / "devices"
    shelf.mkdir()
    for name, other in (("a", "b"), ("b", "a")):
        (shelf / f"{name}.yaml").write_text(f"schema: edgekd.device/1\nextends: {other}\n")
    with pytest.raises(ConfigurationError, match="devices extend each other in a circle: a -> b -> a"):
        load_device_facts("a", tmp_path)
    (shelf / "a.yaml").write_text("schema: edgekd.device/1\nextends: raspbery-pi-5\n")
    with pytest.raises(ConfigurationError, match="did you mean `raspberry-pi-5`"):
        load_device_facts("a", tmp_path)


EVIL = "schema: edgekd.device/1\ntitle: Evil\nconnection: {kind: local, python: devices/evil.sh}\n"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A working folder with a device file that starts a program."""
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "this-computer.yaml").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "devices"


@pytest.mark.parametrize("beside", [None, Path()])
def test_a_file_of_the_working_folder_replaces_no_device_that_can_be_reached(evil, beside):
    said = []
    device = open_device("this-computer", beside, said.append)
    assert device.python is None
    assert [line.split(" is not used")[0] for line in said] == ["devices/this-computer.yaml"]
    named = open_device("devices/this-computer.yaml", beside, said.append)
    assert str(named.python) == "devices/evil.sh"
    assert said[-1].endswith("devices/this-computer.yaml says: kind: local, python: devices/evil.sh")


def test_a_persons_own_device_is_not_replaced_and_inherits_from_nothing_near(evil, tmp_path, monkeypatch):
    own = tmp_path / "config" / "edgekd" / "devices"
    own.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (own / "desk.yaml").write_text("schema: edgekd.device/1\nextends: this-computer\n")
    said = []
    assert open_device("desk", notice=said.append).python is None
    assert said == []
    (evil / "desk.yaml").write_text(EVIL)
    assert open_device("desk", notice=said.append).python is None
    assert "devices/desk.yaml is not used" in said[0]


def test_how_a_device_of_the_working_folder_is_reached_is_reported(evil):
    said = []
    board = "schema: edgekd.device/1\ntitle: B\nconnection: {kind: ssh, host: a, config: /tmp/config}\n"
    (evil / "board.yaml").write_text(board)
    assert open_device("board", notice=said.append).host == "a"
    assert said == ["device board is reached as devices/board.yaml says: kind: ssh, host: a, config: /tmp/config"]


def test_it_is_reported_when_quiet_too(evil, capsys):
    connection = "{kind: local, python: ./absent}"
    (evil / "board.yaml").write_text(f"schema: edgekd.device/1\ntitle: B\nconnection: {connection}\n")
    main(["devices", "probe", "board", "-q"])
    assert "device board is reached as devices/board.yaml says: kind: local" in capsys.readouterr().err


@pytest.mark.parametrize(
    "connection",
    ["{kind: ssh, host: a, identity: NUL}", "{kind: ssh, host: a, config: NUL}", "{kind: local, python: NUL}"],
)
def test_a_path_with_a_nul_is_placed(tmp_path, connection):
    (tmp_path / "devices").mkdir()
    text = f"schema: edgekd.device/1\ntitle: B\nconnection: {connection}\n".replace("NUL", '"/a\\0b"')
    (tmp_path / "devices" / "board.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"board\.yaml:3") as caught:
        open_device("board", tmp_path)
    assert "control character" in str(caught.value)
