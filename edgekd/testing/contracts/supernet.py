"""Contract of a family whose choice of an arch can be trained:

- with all weight on one arch, the supernet computes what the extracted module does, at 1e-5;
- what is extracted is built as the family builds that arch, in eval mode, and shares no memory with the network;
- every weight of the supernet is trained, and a gradient reaches the weight of every choice of every axis that
  has more than one;
- block costs cover the arch: multiply-adds, bytes and weights add up to what is counted from its graph, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch, Space
from edgekd.students._protocol import SupernetFamily
from edgekd.students.analysis import analyse_arch
from edgekd.students.supernet.block_costs import Cost
from edgekd.students.supernet.choices import Choices
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

__all__ = ["SupernetContract"]

_SAMPLE = 8


class SupernetContract:
    """Subclass it, override ``make_family`` (and ``spec`` where it needs other images): pytest does the rest."""

    @pytest.fixture
    def make_family(self) -> Callable[[], Any]:
        """A function that makes the same family each time it is called."""
        raise NotImplementedError("override the fixture `make_family`")

    @pytest.fixture
    def spec(self) -> TaskSpec:
        """The task it builds students for."""
        return TaskSpec(name="contract", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)

    @pytest.fixture
    def space(self, make_family: Callable[[], Any], spec: TaskSpec) -> Space:
        """Space of the family's archs."""
        space: Space = make_family().space(spec)
        return space

    @pytest.fixture
    def archs(self, space: Space) -> list[Arch]:
        """The smallest, the largest, and some between."""
        return [space.at(index) for index in space.indices(_SAMPLE, seed=0)]

    @pytest.fixture
    def network(self, make_family: Callable[[], Any], spec: TaskSpec) -> Any:
        """Supernet with statistics and scales that are all different, so that a mix-up shows."""
        family = make_family()
        assert isinstance(family, SupernetFamily)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: Any = family.supernet(spec)
            with torch.no_grad():
                for part in network.modules():
                    if isinstance(part, nn.BatchNorm2d):
                        for statistic, (low, high) in (
                            (part.running_mean, (-0.5, 0.5)),
                            (part.running_var, (0.5, 2.0)),
                        ):
                            assert statistic is not None
                            statistic.uniform_(low, high)
                        part.weight.uniform_(0.5, 2.0)
                        part.bias.normal_()
        return network.eval()

    def test_every_weight_is_trained(self, make_family: Callable[[], Any], spec: TaskSpec) -> None:
        frozen = [name for name, weight in make_family().supernet(spec).named_parameters() if not weight.requires_grad]
        assert not frozen, f"these weights of the supernet are frozen: {frozen[:3]}"

    def test_one_arch_is_the_extracted_one(self, network: Any, space: Space, spec: TaskSpec, archs: list[Arch]) -> None:
        images = torch.randn((3, *spec.input.shape), generator=torch.Generator().manual_seed(1))
        choices = Choices(space.axes)
        for arch in archs:
            with torch.no_grad():
                one, other = network(images, choices.picks(arch)), network.extract(arch)(images)
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=str(arch))

    def test_extracted_as_it_is_built(
        self, network: Any, make_family: Callable[[], Any], spec: TaskSpec, archs: list[Arch]
    ) -> None:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        for arch in archs:
            module, built = network.extract(arch), make_family().build(arch, spec)
            assert [(n, t.shape) for n, t in module.state_dict().items()] == [
                (n, t.shape) for n, t in built.state_dict().items()
            ]
            assert not any(part.training for part in module.modules())
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.zero_()
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

    def test_a_gradient_reaches_every_choice(self, network: Any, space: Space, spec: TaskSpec) -> None:
        images = torch.randn((4, *spec.input.shape), generator=torch.Generator().manual_seed(1))
        choices = Choices(space.axes)
        network.train()(images, choices.probabilities()).square().mean().backward()
        for axis in space.axes:
            gradient = choices.logits[axis.name].grad
            if len(axis.choices) > 1:
                assert gradient is not None, axis.name
                assert bool((gradient != 0).all()), axis.name

    def test_block_costs_add_up_to_the_whole(
        self, make_family: Callable[[], Any], space: Space, spec: TaskSpec, archs: list[Arch]
    ) -> None:
        family = make_family()
        block_costs = family.block_costs(spec)
        for arch in archs:
            counted = analyse_arch(family, arch, spec, Precision.FLOAT32)
            found = {
                count: Cost.counted(block_costs, count).of(arch, space.axes) for count in ("macs", "bytes", "weights")
            }
            wanted = {"macs": counted.macs, "bytes": counted.bytes_moved, "weights": counted.parameters}
            assert found == wanted, str(arch)
