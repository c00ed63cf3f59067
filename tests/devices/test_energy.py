"""Energy of a call, end to end: a tree whose counter follows what the measured process really does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from edgekd.devices._protocol import Load, MeasurePlan
from edgekd.devices.agent_options import MeterOptions
from edgekd.devices.diagnostic import null_job
from edgekd.devices.local import LocalDevice
from edgekd.devices.session import AgentSession
from edgekd.evidence import EvidenceKind
from edgekd.measure.figures import figures_of

pytestmark = pytest.mark.runtime  # agents and what they measure, in processes of their own

IDLE_W, WORK_W = 2.0, 3.0
PLAN = MeasurePlan(processes=2, rounds=1, round_ms=2.0, warmup_ms=2.0, sentinel=False, energy=True, energy_window_s=0.6)


class Follower:
    """A RAPL tree: two watts always, three more while a worker of the agent computes, or waits for its turn to."""

    def __init__(self, root: Path) -> None:
        self.root, self.agent = root, 0
        self.place = root / "sys/class/powercap/intel-rapl:0"
        self.place.mkdir(parents=True)
        (self.place / "name").write_text("package-0\n")
        (self.place / "max_energy_range_uj").write_text("262143328850\n")
        self.joules = self.late_s = 0.0
        self.counted: dict[int, float] = {}  # of each worker, and of those that have ended
        self.put()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.play)

    def put(self) -> None:
        part = self.place / "part"
        part.write_text(f"{int(self.joules * 1e6)}\n")
        part.replace(self.place / "energy_uj")

    def worked_s(self) -> float:
        """Seconds that workers computed or waited for their turn, as the kernel counts them: a look of ours that comes
        late, for other programs have the processor, loses nothing of it."""
        try:
            for child in psutil.Process(self.agent).children():
                ran_ns, waited_ns, _ = Path(f"/proc/{child.pid}/schedstat").read_text().split()
                self.counted[child.pid] = (int(ran_ns) + int(waited_ns)) * 1e-9
        except (psutil.NoSuchProcess, OSError):  # a worker has just ended, or the session before the fixture
            pass
        return sum(self.counted.values())

    def play(self) -> None:
        begun_s = last_s = time.monotonic()
        while not self.over.wait(0.001):
            self.joules = IDLE_W * (time.monotonic() - begun_s) + WORK_W * self.worked_s()
            self.put()
            now_s = time.monotonic()
            self.late_s, last_s = max(self.late_s, now_s - last_s), now_s

    @property
    def tolerance(self) -> float:
        """Relative error of a window's work, where the counter is late at both ends of it, as on a busy machine."""
        return min(0.5, 0.1 + 2 * self.late_s * (IDLE_W + WORK_W) / (WORK_W * PLAN.energy_window_s))


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    found = Follower(tmp_path / "tree")
    yield found
    found.over.set()
    if found.thread.ident is not None:
        found.thread.join()


@pytest.fixture
def session(follower: Follower) -> Iterator[AgentSession]:
    meter = MeterOptions(kind="rapl", root=str(follower.root))
    with LocalDevice(name=f"metered-{time.monotonic_ns()}", meter=meter).open() as opened:
        follower.agent = opened._link.pid  # type: ignore[attr-defined]  # only a pipe has a process
        follower.thread.start()
        yield opened


def test_a_call_of_known_energy(session: AgentSession, follower: Follower, tmp_path: Path) -> None:
    assert session.describe().meter == "RAPL, 1 package"
    steps: list[tuple[int, int]] = []
    follower.late_s = 0.0
    (result,) = session.measure(
        [null_job(tmp_path, "spin=2000")], PLAN, lambda _, done, total: steps.append((done, total))
    )
    assert steps[-1] == (4, 4)
    found = {figure.metric: figure for figure in figures_of(result)}
    energy = found["energy.per_inference"]
    assert energy.kind is EvidenceKind.MEASURED
    assert energy.subject == session.describe().digest()
    # a call takes 2 ms, and longer where other programs take the processor from it
    expected = [WORK_W * sample.window_s / sample.calls for sample in result.energy]
    assert min(expected) >= 0.95 * WORK_W * 2e-3
    assert [sample.joules for sample in result.energy] == pytest.approx(expected, rel=follower.tolerance)
    assert energy.low is not None
    assert energy.low < energy.value < (energy.high or 0)
    assert "waiting process draws left out, by RAPL, 1 package" in energy.method
    assert found["power.average"].value == pytest.approx(IDLE_W + WORK_W, rel=follower.tolerance)
    assert found["power.idle"].value == pytest.approx(IDLE_W, rel=follower.tolerance)


def test_a_load_of_ten_a_second_draws_less_and_costs_the_same_a_call(session: AgentSession, tmp_path: Path) -> None:
    plan = PLAN.but(load=Load(pattern="periodic", rate_hz=50.0))
    (result,) = session.measure([null_job(tmp_path, "spin=4000")], plan)
    found = {figure.metric: figure for figure in figures_of(result)}
    assert IDLE_W + 0.4 < found["power.average"].value < IDLE_W + 0.7 * WORK_W
    for sample in result.energy:
        assert sample.joules == pytest.approx((sample.busy_w - sample.idle_w) * sample.window_s / sample.calls, rel=0.1)
    assert "at 50 calls a second" in found["energy.per_inference"].method


def test_a_meter_that_stands_still(tmp_path: Path) -> None:
    place = tmp_path / "sys/class/hwmon/hwmon0"
    place.mkdir(parents=True)
    (place / "name").write_text("ina219\n")
    (place / "power1_input").write_text("4000000\n")
    device = LocalDevice(name=f"stuck-{time.monotonic_ns()}", meter=MeterOptions(root=str(tmp_path)))
    with device.open() as session:
        assert session.describe().meter == "hwmon ina219 (hwmon0)/1"
        (result,) = session.measure([null_job(tmp_path, "spin=100")], PLAN)
    assert result.energy == ()
    assert "stands still: 4 W with work and without" in result.energy_detail
    assert not any(figure.metric.startswith("energy") for figure in figures_of(result))


def test_without_a_meter_the_reason_is_reported(tmp_path: Path) -> None:
    with LocalDevice(name=f"none-{time.monotonic_ns()}", meter=MeterOptions(root=str(tmp_path))).open() as session:
        described = session.describe()
        (result,) = session.measure([null_job(tmp_path)], PLAN)
    assert described.meter == ""
    assert result.energy_detail == described.no_meter
    assert "rapl: no counter" in described.no_meter


def test_somebodys_word_is_modelled(tmp_path: Path) -> None:
    meter = MeterOptions.model_validate({"kind": "constant", "busy": "5 W", "idle": "2 W"})
    with LocalDevice(name=f"word-{time.monotonic_ns()}", meter=meter).open() as session:
        described = session.describe()
        (result,) = session.measure([null_job(tmp_path, "spin=1000")], PLAN)
    assert described.meter == "5 W busy, 2 W idle, by the device file"
    assert described.power_is_modelled
    assert result.energy_detail == ""
    found = {figure.metric: figure for figure in figures_of(result)}
    assert found["energy.per_inference"].kind is EvidenceKind.MODELLED
    assert found["energy.per_inference"].value == pytest.approx(3.0 * found["latency.mean"].value * 1e-6)
    assert found["power.average"].value == pytest.approx(5.0)


def test_the_meter_is_no_part_of_the_identity(tmp_path: Path) -> None:
    def digest(meter: MeterOptions | None) -> str:
        with LocalDevice(name=f"same-{time.monotonic_ns()}", meter=meter).open() as session:
            return session.describe().digest()

    assert digest(None) == digest(MeterOptions(kind="none"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"kind": "lines"}, "path"),
        ({"kind": "battery"}, "scale"),
        ({"kind": "constant", "busy": "5 W"}, "needs both"),
        ({"kind": "constant", "busy": "2 W", "idle": "5 W"}, "must be above"),
        ({"kind": "rapl", "busy": "5 W", "idle": "2 W"}, "belong to"),
        ({"kind": "sun"}, "kind"),
    ],
)
def test_a_meter_that_is_described_wrongly(written: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MeterOptions.model_validate(written)
