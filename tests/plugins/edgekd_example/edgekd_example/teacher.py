"""`stripe-rule`: knows stripes without having learnt them. A teacher need not be a network."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor, stack

from edgekd.records import Digest, Record, digest_json


class StripeRule(Record):
    """Options of `stripe-rule`: ``sharpness`` is the logit of one raw unit."""

    sharpness: PositiveFloat = 0.1

    @property
    def name(self) -> str:
        """What a report calls it."""
        return "rule for stripes"

    @property
    def classes(self) -> int:
        """Horizontal and vertical."""
        return 2

    def digest(self) -> Digest:
        """Of the rule's version and its option: everything that decides an answer."""
        return digest_json(["stripe-rule/1", self.sharpness])

    def logits(self, batch: Tensor) -> Tensor:
        """How much the means of rows differ, and those of columns. (N, C, H, W) raw to (N, 2)."""
        image = batch.detach().float().mean(1)
        return self.sharpness * stack([image.mean(2).std(1), image.mean(1).std(1)], dim=1)
