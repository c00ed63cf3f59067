"""What the stage's own tests don't see: layout, precision, other modules, schedules, probing, averages."""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distill.autotune import Execution, fastest, probe
from edgekd.distill.average import Average
from edgekd.distill.curve import read_curve, write_curve
from edgekd.distill.learner import Learner
from edgekd.distill.loop import Plan, TrainingData, batches_of, train
from edgekd.distill.losses.combined import Combined
from edgekd.distill.objective import Objective
from edgekd.distill.predict import predict
from edgekd.distill.schedule import learning_rate
from edgekd.errors import Interrupted
from edgekd.records import digest_json
from edgekd.store.records import CurvePoint
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, TaskSpec


def training_data(count=20, shape=(2, 4, 4)):
    rng = np.random.default_rng(0)
    return TrainingData(
        inputs=torch.from_numpy(rng.integers(0, 255, (count, *shape)).astype(np.uint8)),
        labels=torch.from_numpy(rng.integers(0, 3, count)),
        spec=InputSpec(shape=shape, mean=(100.0,), std=(50.0,)),
        view=None,
        view_seeds=(0,),
        teacher=None,
        classes=3,
    )


def plan(**changes):
    options = {
        "digest": digest_json("plan"),
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-2,
        "warmup_epochs": 1,
        "average": 0.0,
        "precisions": ("float32",),
        "seed": 0,
    }
    return Plan(**{**options, **changes})


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(16, 3)
    )


CE = Objective.of(Combined.model_validate("ce"))


def test_is_plain_sgd_with_nesterov_and_no_decay_on_small_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: Execution())
    given, options = training_data(count=8), plan(epochs=2, warmup_epochs=0)  # one batch an epoch
    trained = train(network(), given, CE, options, tmp_path, device=torch.device("cpu"))
    module, velocity = network().train(), {}
    inputs = (given.inputs.float() - 100) / 50
    for step in range(2):
        module.zero_grad()
        nn.functional.cross_entropy(module(inputs), given.labels).backward()
        with torch.no_grad():
            for name, p in module.named_parameters():
                grad = p.grad + (options.weight_decay * p if p.ndim > 1 else 0)
                velocity[name] = grad.clone() if step == 0 else 0.9 * velocity[name] + grad
                p -= learning_rate(step, 2, 0, 0.1) * (grad + 0.9 * velocity[name])
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(trained.module.state_dict()[name], tensor, msg=name, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_epoch_took_its_validation_too(tmp_path):
    """Or a long training would be reckoned at less than it takes."""

    def slow(module):
        time.sleep(0.2)
        return scored(0.5)

    trained = train(network(), training_data(), CE, plan(), tmp_path, slow, device=torch.device("cpu"))
    assert all(point.validation == 0.5 and point.images_per_s < 20 / 0.2 for point in trained.curve)


@pytest.mark.slow
def test_dropout_and_torchs_own_generator_are_left_in_order(tmp_path):
    first, second = network(0.5), network(0.5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = train(first, training_data(), CE, plan(), tmp_path / "one", device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    two = train(second, training_data(), CE, plan(), tmp_path / "two", device=torch.device("cpu"))
    assert all(torch.equal(one.module.state_dict()[n], t) for n, t in two.module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("execution", [Execution(channels_last=True), Execution(precision="bfloat16")])
def test_layout_and_precision_train_alike_and_leave_plain_float32(tmp_path, monkeypatch, execution):
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: Execution())
    plain = train(network(), training_data(), CE, plan(), tmp_path / "plain", device=torch.device("cpu"))
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: execution)
    other = train(network(), training_data(), CE, plan(), tmp_path / "other", device=torch.device("cpu"))
    assert other.execution == execution
    for name, tensor in plain.module.state_dict().items():
        found = other.module.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert found.is_contiguous()
        torch.testing.assert_close(found, tensor, rtol=0.1, atol=0.05)


def test_a_resumed_training_computes_as_it_began(tmp_path, monkeypatch):
    began = Execution(channels_last=True, speedup=1.5)
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: began)
    train(network(), training_data(), CE, plan(), tmp_path, device=torch.device("cpu"))
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: Execution(precision="bfloat16"))
    assert train(network(), training_data(), CE, plan(), tmp_path, device=torch.device("cpu")).execution == began


def test_killed_before_its_first_step_it_goes_on_in_the_layout_it_began_in(tmp_path, monkeypatch):
    began = Execution(channels_last=True, speedup=1.5)
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: began)
    with monkeypatch.context() as killing:
        killing.setattr("edgekd.distill.loop._Training.step", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            train(network(), training_data(), CE, plan(), tmp_path, device=torch.device("cpu"))
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: Execution(precision="bfloat16"))
    assert train(network(), training_data(), CE, plan(), tmp_path, device=torch.device("cpu")).execution == began


def test_learning_rate_warms_up_and_ends_near_zero():
    rates = [learning_rate(step, 100, 10, 0.5) for step in range(100)]
    assert 0 < rates[0] < rates[9] < rates[10] == 0.5
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.25)
    assert rates[-1] < 1e-3


def test_one_cycle_is_that_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    peer = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=40, cycle_momentum=False)
    for step in range(40):
        assert learning_rate(step, 40, 0, 0.5, "one-cycle") == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step()
    assert [learning_rate(0, steps, 0, 0.5, "one-cycle") for steps in (1, 2, 3)] == [0.5] * 3


def test_a_constant_rate_decays_in_the_last_fifth():
    rates = [learning_rate(step, 100, 10, 0.5, "constant-then-decay") for step in range(100)]
    assert 0 < rates[0] < rates[9] < rates[10]
    assert set(rates[10:81]) == {0.5}
    assert rates[85] == pytest.approx(0.5 * (1 - (5 / 20) ** 0.5))
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[80:]))
    assert learning_rate(0, 1, 0, 0.5, "constant-then-decay") == 0.5


def test_a_longer_gradient_is_cut_a_shorter_one_left():
    moved = {}
    for clip in (None, 5.0, 1.0):
        module = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(module.weight)
        learner = Learner(module, torch.optim.SGD(module.parameters(), lr=1.0), clip=clip)
        (module.weight * torch.tensor([[3.0, 4.0]])).sum().backward()
        learner.update(0)
        moved[clip] = module.weight.detach().flatten().tolist()
    assert moved[None] == [-3.0, -4.0]
    assert moved[5.0] == pytest.approx(moved[None])
    assert moved[1.0] == pytest.approx([-0.6, -0.8])


def test_average_takes_in_weights_and_running_statistics():
    module = network().train()
    average = Average(module, decay=0.9)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(torch.randn(6, 2, 4, 4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1.0
    average.update(step=10_000)
    average.settle()
    for name, tensor in average.module.state_dict().items():
        live = module.state_dict()[name]
        expected = 0.9 * start[name] + 0.1 * live if tensor.is_floating_point() else live
        torch.testing.assert_close(tensor, expected)
    assert not torch.equal(average.module[1].running_mean, start["1.running_mean"])


@pytest.mark.parametrize(("step", "kept"), [(0, 0.1), (10, 0.55), (10_000, 0.9)])
def test_the_first_steps_do_not_dominate_an_average(step, kept):
    module = network()
    average = Average(module, decay=0.9)
    before = module[0].weight.detach().clone()
    with torch.no_grad():
        module[0].weight += 1.0
    average.update(step=step)
    torch.testing.assert_close(average.module[0].weight, before + 1.0 - kept)


@pytest.mark.parametrize(
    ("costs", "expected"), [((1.0, 0.95), 0), ((1.0, 0.5), 1), ((1.0, 20.0), 0)], ids=["close", "faster", "hopeless"]
)
def test_probe_leaves_the_plain_choice_only_for_one_clearly_faster(costs, expected):
    now, options, tried = [0.0], [Execution(), Execution(precision="bfloat16")], [0, 0]

    def step(option):
        place = options.index(option)
        tried[place] += 1
        now[0] += costs[place]

    found = fastest(options, step, lambda: now[0])
    assert found.precision == options[expected].precision
    if costs[1] == 20.0:
        assert tried[1] == 2, "hopeless, and tried again"


class Flattening(nn.Module):
    """As PyTorch's tutorials flatten: `view` refuses a map whose channels are last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 256, 10)

    def forward(self, x):
        return self.classes(self.conv(x).view(-1, 8 * 256))


def test_a_module_that_flattens_by_view_is_trained_contiguous():
    found = probe(Flattening(), InputSpec(shape=(3, 16, 16)), 8, torch.device("cpu"))
    assert not found.channels_last


def test_probe_leaves_the_module_as_it_was():
    module = network().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    probe(module, InputSpec(shape=(2, 4, 4)), 8, torch.device("cpu"))
    assert not module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(("alone", "expected"), [(0.1, 1), (0.95, None)], ids=["busy", "idle"])
def test_fewer_threads_train_where_they_are_clearly_faster(monkeypatch, alone, expected):
    """Two threads of which one waits for a busy core are slower than one."""
    now, module = [0.0], network()

    class Watch(nn.Module):
        def forward(self, inputs):
            now[0] += alone if torch.get_num_threads() == 1 else 1.0
            return inputs

    monkeypatch.setattr("edgekd.distill.autotune._known", {})
    module.append(Watch())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = probe(module, InputSpec(shape=(2, 4, 4)), 8, torch.device("cpu"), ("float32",), clock=lambda: now[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found.threads == expected


def test_a_training_has_the_threads_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.distill.loop.probe", lambda *_: Execution(threads=1))
    seen, before, notes = [], torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        train(
            network(),
            training_data(),
            CE,
            plan(),
            tmp_path,
            validate=lambda _: seen.append(torch.get_num_threads()) or scored(0.5),
            progress=lambda _done, _total, note: notes.append(note),
            device=torch.device("cpu"),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
    assert notes[-1].endswith("samples/s on 1 thread")


@pytest.mark.parametrize(("side", "most"), [(8, 256), (128, 10)])
def test_predict_takes_no_more_at_once_than_two_mib(side, most):
    seen = list[int]()

    class Mean(nn.Module):
        def forward(self, batch):
            seen.append(len(batch))
            return batch.mean((2, 3))

    spec = TaskSpec(name="t", input=InputSpec(shape=(3, side, side)), head=HeadSpec(classes=3), data="0" * 64)
    inputs = np.zeros((300 if side == 8 else 15, 3, side, side), np.uint8)
    predict(Mean(), inputs, spec)
    assert seen == [most, len(inputs) - most]


def test_predict_normalises_and_restores_each_parts_mode(task, student):
    student.module.train()
    student.module.stem.eval()
    raw = task.split("test").inputs
    found = predict(student.module, raw, task.spec, batch=7)
    assert student.module.training
    assert not student.module.stem.training
    expected = student.module.eval()((torch.from_numpy(raw).float() - 60) / 60).detach().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_torn_last_line_of_a_curve_is_passed_over(tmp_path):
    points = [CurvePoint(epoch=e, loss=1.0, validation=None, rate=0.1, images_per_s=5.0) for e in range(3)]
    write_curve(tmp_path, points)
    whole = (tmp_path / "curve.jsonl").read_bytes()
    (tmp_path / "curve.jsonl").write_bytes(whole[:-9])
    assert read_curve(tmp_path) == tuple(points[:2])
    (tmp_path / "curve.jsonl").write_bytes(whole[:20] + b"\n" + whole)
    with pytest.raises(ValueError, match="CurvePoint"):
        read_curve(tmp_path)
    assert read_curve(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(("count", "steps"), [(255, 2), (1136, 9), (45_489, 356)])
def test_batches_divide_evenly_among_threads(count: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that don't have killed the process in torch's own backward pass."""
    for threads in (1, 2, 3, 4, 12):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        batches = batches_of(torch.arange(count), steps, torch.device("cpu"))
        sizes = {len(batch) for batch in batches}
        assert len(batches) == steps
        assert all(size % threads == 0 for size in sizes)
        assert max(sizes) - min(sizes) <= threads
        seen = torch.cat(list(batches))
        assert count - threads < len(seen) <= count
        assert len(torch.unique(seen)) == len(seen)


def test_a_handful_of_samples_is_used_up() -> None:
    batches = batches_of(torch.arange(3), 3, torch.device("cpu"))
    assert [len(batch) for batch in batches] == [1, 1, 1]


@pytest.mark.parametrize(("scores", "kept"), [((0.9, 0.2, 0.3, 0.4), 0), ((0.5, 0.6, 0.7, 0.1), 2), ((0.5,) * 4, 3)])
def test_the_best_of_start_and_epochs_is_kept_and_of_equal_ones_the_last(tmp_path, scores, kept):
    """What inherits trained weights is never handed on worse than it was."""
    seen, answers = [], iter(scores)

    def validate(module):
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return scored(next(answers))

    options = plan(keep_best=True)
    trained = train(network(), training_data(), CE, options, tmp_path, validate=validate, device=torch.device("cpu"))
    assert len(seen) == 4
    assert [point.validation for point in trained.curve] == list(scores[1:])
    assert all(torch.equal(tensor, seen[kept][name]) for name, tensor in trained.module.state_dict().items())


def scored(value, right=()):
    return Score(metric="top1", value=value, samples=100, correct=tuple(right))


WRONG_BEFORE = 50


def answers_of(gained, lost):
    """Of 100 samples the first half was right: so many of either half are answered otherwise."""
    right = [True] * (WRONG_BEFORE - lost) + [False] * lost + [True] * gained + [False] * (WRONG_BEFORE - gained)
    return scored(sum(right) / 100, right)


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        (((6, 5), (9, 5), (7, 5)), 0),  # luckier than the start, and no more than chance
        (((12, 1), (9, 5), (14, 2)), 3),
        (((12, 1), (5, 5), (3, 5)), 1),
        (((12, 1), (25, 13), (3, 5)), 1),  # each that replaces another has to be
        (((7, 1), (0, 9), (0, 9)), 0),  # beyond 5 %, and not beyond 5 % over three validations
    ],
)
def test_a_start_that_needs_no_training_stays_unless_an_epoch_beats_it_beyond_chance(tmp_path, epochs, kept):
    seen, scores = [], iter([answers_of(0, 0), *(answers_of(*each) for each in epochs)])

    def validate(module):
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return next(scores)

    options = {"validate": validate, "device": torch.device("cpu")}
    trained = train(network(), training_data(), CE, plan(keep_best=True, keeps_start=True), tmp_path, **options)
    assert all(torch.equal(tensor, seen[kept][name]) for name, tensor in trained.module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "kept"), [(7, 0), (14, 3)])
def test_a_resumed_training_still_knows_its_start(tmp_path, gained, kept):
    seen, scores, asked = [], [answers_of(0, 0), *[answers_of(gained, 4)] * 3], itertools.count()

    def validate(module):
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return scores[len(seen) - 1]

    options = {"validate": validate, "device": torch.device("cpu")}
    asked_plan = plan(keep_best=True, keeps_start=True)
    with pytest.raises(Interrupted):
        train(network(), training_data(), CE, asked_plan, tmp_path, stop=lambda: next(asked) >= 2, **options)
    assert len(seen) < 4
    trained = train(network(), training_data(), CE, asked_plan, tmp_path, **options)
    assert len(seen) == 4
    assert all(torch.equal(tensor, seen[kept][name]) for name, tensor in trained.module.state_dict().items())


@pytest.mark.parametrize(("keeps", "epochs"), [(True, 2), (False, 3)])
def test_where_time_is_up_a_training_that_keeps_its_best_ends_with_the_epoch(tmp_path, keeps, epochs):
    """Any other ends at the least learning rate of its schedule."""
    seen, scores = [], iter((0.2, 0.6, 0.5, 0.1))

    def validate(module):
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return scored(next(scores))

    def late():
        return len(seen) >= (3 if keeps else 1)  # the start is validated too

    options = {"validate": validate, "late": late, "device": torch.device("cpu")}
    trained = train(network(), training_data(), CE, plan(keep_best=keeps), tmp_path, **options)
    assert len(trained.curve) == epochs
    if keeps:
        assert all(torch.equal(tensor, seen[1][name]) for name, tensor in trained.module.state_dict().items())


def test_an_epoch_that_is_not_validated_is_not_the_last(tmp_path):
    options = {"validate": lambda _: scored(0.5), "late": lambda: True, "device": torch.device("cpu")}
    trained = train(network(), training_data(), CE, plan(keep_best=True, epochs=60), tmp_path, **options)
    assert [point.validation for point in trained.curve] == [None, 0.5]


def test_one_epoch_is_trained_however_late_it_is(tmp_path):
    options = {"validate": lambda _: scored(0.5), "late": lambda: True, "device": torch.device("cpu")}
    assert len(train(network(), training_data(), CE, plan(keep_best=True), tmp_path, **options).curve) == 1


@pytest.mark.slow
def test_a_resumed_training_still_knows_its_best(tmp_path):
    def stopped(after):
        asked = itertools.count()
        return lambda: next(asked) >= after

    scores = {"whole": iter((0.9, 0.2, 0.3, 0.4)), "parts": iter((0.9, 0.2, 0.3, 0.4))}
    found = {}
    for name in scores:
        options = {"validate": lambda _, name=name: scored(next(scores[name])), "device": torch.device("cpu")}
        if name == "parts":
            with pytest.raises(Interrupted):
                train(network(), training_data(), CE, plan(keep_best=True), tmp_path / name, stop=stopped(4), **options)
        found[name] = train(network(), training_data(), CE, plan(keep_best=True), tmp_path / name, **options).module
    whole, parts = (found[name].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    assert all(torch.equal(tensor, whole[name]) for name, tensor in network().state_dict().items())


@pytest.mark.slow
def test_a_range_test_is_reported_and_its_rate_is_kept_for_a_resumed_training(tmp_path, monkeypatch):
    notes, tested = list[str](), plan(tests_range=True, learning_rate=1e9)
    first = train(network(), training_data(), CE, tested, tmp_path, None, lambda *at: notes.append(at[2]))
    assert notes[0] == "range test of the learning rate, step 1 of 30 at most"
    assert 1e-6 < max(point.rate for point in first.curve) < 1.0
    monkeypatch.setattr("edgekd.distill.loop.range_test", lambda *_: pytest.fail("tested again"))
    again = train(network(), training_data(), CE, tested, tmp_path)
    assert all(torch.equal(again.module.state_dict()[n], t) for n, t in first.module.state_dict().items())
