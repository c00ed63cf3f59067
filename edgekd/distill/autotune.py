"""Probe of execution options: finds the fastest precision, memory layout and thread count, for some seconds, once for
each process.

The best choice depends on the CPU (bfloat16 is fastest with AMX and twenty times slower with plain AVX2) and on the
module. The default, contiguous float32 with torch's own threads, is replaced only by one that is faster by more than a
tenth. Fewer threads are tried since, beside other work, two threads that waited for each other took 16 times as long as
one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn
from torch.utils import _pytree as pytree

from edgekd.records import Digest, Record, digest_json
from edgekd.tasks._protocol import InputSpec

__all__ = ["Execution", "Precision", "fastest", "laid_out", "probe", "takes_channels_last", "training_rate"]

Precision = Literal["float32", "bfloat16"]

_LIMIT_S = 2.0
_ROUNDS = 6
_HOPELESS = 2.5  # times the best: not tried again
_WORTH_IT = 1.1

_known: dict[Digest, Execution] = {}


class Execution(Record):
    """Execution options of a training.

    Stored in its checkpoints, so that a resumed training continues with the same.
    """

    precision: Precision = "float32"
    channels_last: bool = False
    threads: PositiveInt | None = None  # None: as many as torch has
    speedup: PositiveFloat = 1.0  # over contiguous float32, where it was probed

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout of inputs and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @contextmanager
    def on_threads(self) -> Iterator[None]:
        """Set torch's thread count inside this context."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def probe(
    module: nn.Module,
    given: InputSpec,
    batch_size: int,
    device: torch.device,
    precisions: Sequence[Precision] = ("float32", "bfloat16"),
    clock: Callable[[], float] = time.perf_counter,
) -> Execution:
    """Return the fastest execution for training a module on such inputs. The module is not changed.

    ``precisions`` are those allowed. The result is cached in this process for modules with the same kinds of layers.
    """
    last = not _dies_channels_last(module, given) and takes_channels_last(module, given, training=True)
    layouts = (False, True) if last else (False,)
    options = [Execution(precision=p, channels_last=layout) for p in precisions for layout in layouts]
    key = digest_json(
        [_kinds(module), list(given.shape), batch_size, str(device), torch.get_num_threads(), list(precisions), layouts]
    )
    if key not in _known:
        step = _steps(module, given, batch_size, device)
        chosen = fastest(options, step, clock)
        fewer = [chosen.but(threads=count) for count in _fewer(torch.get_num_threads())] if device.type == "cpu" else []
        quicker = fastest([chosen, *fewer], step, clock) if fewer else chosen
        both = 1.0 if quicker is chosen else round(chosen.speedup * quicker.speedup, 3)
        _known[key] = chosen if quicker is chosen else quicker.but(speedup=both)
    return _known[key]


def training_rate(
    module: nn.Module,
    given: InputSpec,
    device: torch.device,
    batch_size: int = 32,
    execution: Execution = Execution(),
) -> float:
    """Return the images per second of a training of this module, from a few float32 steps without loss or teacher."""
    step, times = _steps(module, given, batch_size, device), list[float]()
    step(execution)  # sets kernels up
    while len(times) < 3 and sum(times) < _LIMIT_S:
        begun = time.perf_counter()
        step(execution)
        times.append(time.perf_counter() - begun)
    return _samples(batch_size) / min(times)


def laid_out(module: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """Move the module itself to a device, its four-dimensional weights to a memory layout."""
    module.to(device)
    module.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's own annotations leave it out
    return module


def fastest(
    options: Sequence[Execution], step: Callable[[Execution], object], clock: Callable[[], float] = time.perf_counter
) -> Execution:
    """Return the option whose ``step`` takes least; the first is the default.

    Interleaved rounds, the least time of each option; options far slower than the best are dropped after the first
    round.
    """
    begun, best = clock(), dict.fromkeys(options, float("inf"))
    for round_ in range(_ROUNDS):
        for option in options:
            if round_ and best[option] > _HOPELESS * min(best.values()):
                continue
            if round_ and clock() - begun > _LIMIT_S:
                break
            if not round_:
                step(option)  # the first call sets kernels up
            start = clock()
            step(option)
            best[option] = min(best[option], clock() - start)
    plain, winner = options[0], min(options, key=lambda option: best[option])
    speedup = max(best[plain], 1e-9) / max(best[winner], 1e-9)
    return winner.but(speedup=round(speedup, 3)) if speedup > _WORTH_IT else plain


def _steps(module: nn.Module, given: InputSpec, batch_size: int, device: torch.device) -> Callable[[Execution], None]:
    count = _samples(batch_size)
    copies = {
        layout: laid_out(
            copy.deepcopy(module).train(), device, torch.channels_last if layout else torch.contiguous_format
        )
        for layout in (False, True)
    }
    samples = torch.from_numpy(given.random(0, count)).to(device)

    def step(option: Execution) -> None:
        trained = copies[option.channels_last]
        inputs = samples.contiguous(memory_format=option.memory_format)
        with option.on_threads():
            with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, option.precision == "bfloat16"):
                answers = trained(inputs)
            value = torch.stack([part.float().square().mean() for part in pytree.tree_leaves(answers)]).sum()
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        trained.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _fewer(threads: int) -> list[int]:
    """Return half as many threads, halved again while even, and one: each divides the thread count."""
    counts, half = [1] if threads > 1 else [], threads
    while half % 2 == 0 and half > 2:
        half //= 2
        counts.insert(-1, half)
    return counts


def _samples(batch_size: int) -> int:
    """Return the batch size of a trial step: a multiple of the threads, for the reason in `loop.batches_of`."""
    threads = torch.get_num_threads()
    return max(2, threads, min(32, batch_size) // threads * threads)


def takes_channels_last(module: nn.Module, given: InputSpec, *, training: bool = False) -> bool:
    """Return whether a module takes images channels last: ``Tensor.view`` refuses to flatten such a map."""
    if not given.is_image:
        return False
    laid = laid_out(copy.deepcopy(module).train(training), torch.device("cpu"), torch.channels_last)
    samples = torch.from_numpy(given.random(0, 2)).contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            laid(samples)
    except RuntimeError:  # an error of another cause is raised again when the contiguous layout is tried
        return False
    return True


def _dies_channels_last(module: nn.Module, given: InputSpec) -> bool:
    """Return whether torch 2.13 may write out of bounds in its channels-last backward pass, which kills the process.

    Seen with strided 1 x 1 convolutions of fewer than 16 channels on maps of 48 pixels a side and more, for any batch
    and threads. On smaller maps `loop.batches_of` avoids it.
    """
    return (
        given.is_image
        and max(given.shape[1:]) >= 48
        and any(
            isinstance(part, nn.Conv2d)
            and part.kernel_size == (1, 1)
            and max(part.stride) > 1
            and part.in_channels < 16
            for part in module.modules()
        )
    )


def _kinds(module: nn.Module) -> list[str]:
    kinds = {f"{type(part).__name__}:{getattr(part, 'groups', 1) > 1}" for part in module.modules()}
    return sorted(kinds)
