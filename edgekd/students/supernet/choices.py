"""The choice of an arch as something that can be trained: a distribution over the choices of every axis.

Axes are independent of each other; a conditional one has a distribution whether it exists or not. Training sees samples
of the Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144), as FBNet does (Wu et al. 2019, arXiv 1812.03443); costs see
the distribution itself, whose expectation is exact. Both sharpen as the temperature goes down, until one arch has it
all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.ir.space import Arch, Axis, Space
from edgekd.students.supernet.pieces import Cost, ranks_of

__all__ = ["Choices", "expected"]

_LEANING = 300  # steps
_SOFTNESS = 0.2  # of a sample, at least: below it hardly any gradient is left


class Choices(nn.Module):
    """Logits, zero at first, for every choice of every axis."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self._rows = nn.ParameterList([nn.Parameter(torch.zeros(len(axis.choices))) for axis in axes])

    @property
    def logits(self) -> Mapping[str, nn.Parameter]:
        """By axis; a name may have dots in it, which torch allows in no parameter's."""
        return {axis.name: row for axis, row in zip(self.axes, self._rows, strict=True)}

    def probabilities(self, temperature: float = 1.0) -> dict[str, Tensor]:
        """Of the choices of each axis: softmax(logits / temperature)."""
        return {name: torch.softmax(logits / temperature, 0) for name, logits in self.logits.items()}

    def sampled(self, temperature: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights near those of an arch drawn from ``probabilities(temperature)``, the nearer the lower it is.

        Differentiable. ``generator`` is the CPU's.
        """
        found, softness = {}, max(_SOFTNESS, min(1.0, temperature))
        for name, logits in self.logits.items():
            uniform = torch.rand(logits.shape, generator=generator).clamp_(1e-6, 1.0 - 1e-6)
            noise = -torch.log(-torch.log(uniform)).to(logits.device)
            found[name] = torch.softmax((torch.log_softmax(logits / temperature, 0) + noise) / softness, 0)
        return found

    def lean(self, costs: Sequence[Cost]) -> None:
        """Become the most open distribution (in place) in which each cost's expectation is 1, or as near as there is.

        Nothing random: gradient descent from where it is, a second at most.
        """
        if not costs:
            return
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        for _ in range(_LEANING):
            rows = self.probabilities()
            entropy = torch.stack([-(row * row.clamp_min(1e-12).log()).sum() for row in rows.values()]).sum()
            gone = torch.stack([expected(cost, rows).log().square() for cost in costs]).sum()
            optimizer.zero_grad(set_to_none=True)
            (100.0 * gone - entropy).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        for parameter in self.parameters():
            parameter.grad = None

    def mode(self) -> Arch:
        """The most probable arch; of equals, the smaller choice."""
        return Space(axes=self.axes).arch(
            {axis.name: axis.choices[int(self.logits[axis.name].argmax())] for axis in self.axes}
        )

    def picks(self, arch: Arch) -> dict[str, Tensor]:
        """All weight on one arch; on the first choice of an axis that does not exist in it."""
        found = {axis.name: torch.zeros(len(axis.choices)) for axis in self.axes}
        for name, rank in ranks_of(arch, self.axes).items():
            found[name][rank] = 1.0
        return found

    def open_bits(self, temperature: float = 1.0) -> float:
        """Entropy of the distribution over choices, in bits: 0 where one arch has it all."""
        with torch.no_grad():
            rows = self.probabilities(temperature).values()
            return sum(float(-(row * row.clamp_min(1e-12).log()).sum()) for row in rows) / math.log(2.0)


def expected(cost: Cost, probabilities: Mapping[str, Tensor]) -> Tensor:
    """The expectation of a cost where each axis is drawn independently: a scalar, differentiable, exact."""
    total = next(iter(probabilities.values())).new_full((), cost.constant)
    for table in cost.tables:
        left = torch.as_tensor(table.values, dtype=total.dtype, device=total.device)
        for axis in table.axes:  # always the first that is left
            left = torch.tensordot(probabilities[axis], left, dims=1)
        total = total + left
    return total
