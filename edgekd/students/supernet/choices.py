"""Choice probabilities of a differentiable search: a trainable distribution over the choices of every axis.

Axes are independent; a conditional one has a distribution whether it exists or not. The training uses samples of the
Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144), as FBNet does (Wu et al. 2019, arXiv 1812.03443); costs use the
distribution itself, whose expectation is exact. Both sharpen as the temperature decreases, until one arch has all the
probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.ir.space import Arch, Axis, Space
from edgekd.students.supernet.block_costs import Cost, ranks_of

__all__ = ["Choices", "expected"]

_LEANING = 300  # steps
_SOFTNESS = 0.2  # of a sample, at least: below it hardly any gradient is left


class Choices(nn.Module):
    """Logits, initially zero, for every choice of every axis."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self._rows = nn.ParameterList([nn.Parameter(torch.zeros(len(axis.choices))) for axis in axes])

    @property
    def logits(self) -> Mapping[str, nn.Parameter]:
        """Logits by axis; a name may contain dots, which torch does not allow in a parameter's name."""
        return {axis.name: row for axis, row in zip(self.axes, self._rows, strict=True)}

    def probabilities(self, temperature: float = 1.0) -> dict[str, Tensor]:
        """Return the probabilities of each axis's choices: softmax(logits / temperature)."""
        return {name: torch.softmax(logits / temperature, 0) for name, logits in self.logits.items()}

    def sampled(self, temperature: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return weights near one-hot for an arch drawn from ``probabilities(temperature)``, nearer if it is lower.

        Differentiable. ``generator`` is the CPU's.
        """
        found, softness = {}, max(_SOFTNESS, min(1.0, temperature))
        for name, logits in self.logits.items():
            uniform = torch.rand(logits.shape, generator=generator).clamp_(1e-6, 1.0 - 1e-6)
            noise = -torch.log(-torch.log(uniform)).to(logits.device)
            found[name] = torch.softmax((torch.log_softmax(logits / temperature, 0) + noise) / softness, 0)
        return found

    def lean(self, costs: Sequence[Cost]) -> None:
        """Set the distribution of highest entropy with each cost's expectation at 1, or as near as possible (in place).

        Deterministic gradient descent from the current distribution, at most a second.
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
        """Return the most probable arch; of equal choices the smaller."""
        return Space(axes=self.axes).arch(
            {axis.name: axis.choices[int(self.logits[axis.name].argmax())] for axis in self.axes}
        )

    def picks(self, arch: Arch) -> dict[str, Tensor]:
        """Return one-hot weights of an arch; the first choice for an axis that does not exist in it."""
        found = {axis.name: torch.zeros(len(axis.choices)) for axis in self.axes}
        for name, rank in ranks_of(arch, self.axes).items():
            found[name][rank] = 1.0
        return found

    def open_bits(self, temperature: float = 1.0) -> float:
        """Return the entropy of the distribution over choices in bits: 0 if one arch has all the probability."""
        with torch.no_grad():
            rows = self.probabilities(temperature).values()
            return sum(float(-(row * row.clamp_min(1e-12).log()).sum()) for row in rows) / math.log(2.0)


def expected(cost: Cost, probabilities: Mapping[str, Tensor]) -> Tensor:
    """Return the exact expectation of a cost if each axis is drawn independently: a scalar, differentiable."""
    total = next(iter(probabilities.values())).new_full((), cost.constant)
    for table in cost.tables:
        left = torch.as_tensor(table.values, dtype=total.dtype, device=total.device)
        for axis in table.axes:  # always the first that is left
            left = torch.tensordot(probabilities[axis], left, dims=1)
        total = total + left
    return total
