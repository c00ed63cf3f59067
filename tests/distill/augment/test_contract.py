"""Every built-in view keeps the contract, on bytes and on floats; `Chain` and `Mixed` keep it as well."""

from __future__ import annotations

import pytest

from edgekd import plugins
from edgekd.distill.augment.chain import Augment, Chain
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.flip import Flip
from edgekd.distill.augment.mixing import Mixed
from edgekd.testing.contracts.augmentation import AugmentationContract

BUILT_IN = [  # each with another that has to have another digest
    ("flip", {}, ("crop", {"pad": 1})),
    ("crop", {"pad": 2}, ("crop", {"pad": 3})),
    ("rotate", {"degrees": 15}, ("rotate", {"degrees": 16})),
    ("resized_crop", {"area": 0.3}, ("resized_crop", {"area": [0.3, 0.9]})),
    ("colour", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}, ("colour", {"brightness": 0.4})),
    ("colour", {"hue": 0.5}, ("colour", {"saturation": 0.5})),
    ("randaugment", {}, ("randaugment", {"operations": 3})),
    ("erase", {"probability": 0.9}, ("erase", {"probability": 0.9, "fill": "zero"})),
    ("mixup", {"alpha": 1.0}, ("cutmix", {"alpha": 1.0})),
    ("cutmix", {"alpha": 1.0}, ("mixup", {"alpha": 1.0})),
    ("shift", {"share": 0.2}, ("shift", {"share": 0.2, "around": True})),
    ("noise", {"share": 0.05}, ("noise", {"share": 0.06})),
    ("noise", {"snr_db": [5, 20]}, ("noise", {"snr_db": 20})),
    ("specaugment", {}, ("specaugment", {"time_masks": 2})),
]
SIGNALS = [
    case for case in BUILT_IN if case[0] in ("mixup", "shift", "noise", "specaugment") and case[2][0] != "cutmix"
]


def made(name, options):
    return plugins.load("edgekd.augmentations", name).model_validate(options)


def test_no_view_is_left_out():
    assert {name for name, *_ in BUILT_IN} == set(plugins.names("edgekd.augmentations"))


class TestBuiltIn(AugmentationContract):
    @pytest.fixture(params=BUILT_IN, ids=lambda case: case[0])
    def case(self, request):
        return request.param

    @pytest.fixture
    def options(self, case):
        return made(*case[:2])

    @pytest.fixture
    def other(self, case):
        return made(*case[2])


class TestSignals(TestBuiltIn):
    """(1, 1, L), (C, L), and a spectrogram."""

    @pytest.fixture(params=SIGNALS, ids=lambda case: case[0])
    def case(self, request):
        return request.param

    @pytest.fixture(params=[(1, 1, 200), (2, 150), (1, 20, 31)], ids=str)
    def shape(self, request):
        return request.param


class TestChain(AugmentationContract):
    """All but options in JSON: a chain is made from `Augment`, which is what a run keeps."""

    @pytest.fixture
    def options(self):
        return Chain(views=(Flip(), PadCrop(pad=1)))

    @pytest.fixture
    def other(self):
        return Chain(views=(PadCrop(pad=1), Flip()))

    test_options_survive_json = None


class TestMixed(AugmentationContract):
    """What `Augment` makes of views and two ways to mix."""

    @pytest.fixture(params=[["mixup"], ["cutmix"], ["mixup", "cutmix"]], ids="-".join)
    def augment(self, request):
        written = {"crop": 1, "flip": True, **dict.fromkeys(request.param, 1.0)}
        return Augment.model_validate(written)

    @pytest.fixture
    def view(self, augment, spec):
        return augment.view(spec)

    @pytest.fixture
    def options(self, view):
        return view

    @pytest.fixture
    def other(self, view):
        return Mixed(ways=view.ways)

    def test_targets_agree_with_the_pixels(self, augment, spec, labels):
        only = {name: 1.0 for name, _ in augment.parts if name not in ("crop", "flip")}
        # a border of zeros belongs to no class
        view = Augment.model_validate({"crop": 0, "flip": True, **only}).view(spec)
        super().test_targets_agree_with_the_pixels(view, spec, labels)

    test_options_survive_json = None
