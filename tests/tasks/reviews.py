"""Generated reviews of a film: two words of praise or of blame among words of neither."""

from __future__ import annotations

import random
from pathlib import Path

__all__ = ["reviews", "written"]

_WORDS = {
    "bad": "awful poor worst sad dull",
    "good": "great fine lovely best happy",
    "": "the film was a story about people and places in which things happen",
}


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts and their labels, `bad` and `good` in turn, no text twice."""
    rng, found = random.Random(seed), dict[str, str]()
    while len(found) < count:
        label = ("bad", "good")[len(found) % 2]
        words = rng.choices(_WORDS[""].split(), k=rng.randint(3, 12)) + rng.choices(_WORDS[label].split(), k=2)
        rng.shuffle(words)
        found.setdefault(" ".join(words), label)
    return list(found.items())


def written(folder: Path, count: int = 120) -> Path:
    """A CSV file of them."""
    path = folder / "reviews.csv"
    path.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in reviews(count))]) + "\n")
    return path
