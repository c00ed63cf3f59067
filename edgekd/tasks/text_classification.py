"""`text-classification`: sentences with one class each, as token ids.

::

    task: {kind: text-classification, file: reviews.csv, tokens: 64}

A CSV file with the columns ``text``, ``label`` and, optionally, ``split`` (``train``, ``validation`` or ``test``); or
``root``, a folder of .txt files for each class. Missing splits are carved out of the training texts, by their content.
The tokenizer is learnt from the training texts, or ``tokenizer`` is a ``tokenizer.json`` of the library `tokenizers`. A
text is cut, or padded, to ``tokens`` ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, PrivateAttr, model_validator

from edgekd.code_references import ExistingFile, ExistingFolder
from edgekd.errors import ConfigurationError, Place, Problem
from edgekd.records import Record, digest_bytes, digest_json
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, SplitName, SplitSizes, TaskSpec, TextSpec
from edgekd.tasks.class_folders import PART_NAMES, find_classes
from edgekd.tasks.csv_rows import csv_rows
from edgekd.tasks.labelled import CarvedImages, LabelledImages
from edgekd.tasks.labelled_files import Part, Share, class_order, parted
from edgekd.tasks.score import top1
from edgekd.tasks.tokenizing import TOKENIZER, encoded, fitted, learnt, read_tokenizer

__all__ = ["TEXT_SUFFIXES", "TextClassification"]

TEXT_SUFFIXES = (".txt",)

_NAMED = 20  # wrong lines that are listed
_LETTERS = 16  # of each token that a text may have, the tokenizer learns from


class _Text(NamedTuple):
    text: str
    label: str
    part: Part


class _Encoded(NamedTuple):
    carved: CarvedImages
    names: tuple[str, ...]
    tokenizer: bytes
    vocabulary: int
    padding: int


class TextClassification(Record):
    """Options of `text-classification`.

    ``vocabulary`` is the largest number of ids of a learnt tokenizer. ``test`` and ``validation`` are the shares carved
    out if the source has no such part; ``calibration`` and ``train_limit`` are numbers of texts. ``labels`` sets an
    order of classes other than alphabetical.
    """

    file: ExistingFile | None = None
    root: ExistingFolder | None = None
    tokens: Annotated[int, Field(ge=2, le=4096)] = 64
    vocabulary: Annotated[int, Field(ge=64, le=1_000_000)] = 4000
    tokenizer: ExistingFile | None = None
    test: Share = 0.2
    validation: Share = 0.1
    calibration: PositiveInt = 512
    train_limit: PositiveInt | None = None
    labels: tuple[str, ...] = ()
    _encoded: _Encoded | None = PrivateAttr(None)
    _spec: TaskSpec | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.root is None):
            raise ValueError("give `file`, a CSV of text and label, or `root`, a folder of .txt files for each class")
        if self.tokenizer is not None and "vocabulary" in self.model_fields_set:
            raise ValueError("`vocabulary` is for a tokenizer that is learnt: leave it or `tokenizer` out")
        return self

    @property
    def spec(self) -> TaskSpec:
        """Input, head, metric and the data's identity. Raises ConfigurationError for unexpected texts."""
        if self._spec is None:
            found = self._found()
            digest = digest_bytes(found.tokenizer)
            self._spec = TaskSpec(
                name=self._origin().stem,
                kind="text-classification",
                input=InputSpec(
                    name="tokens",
                    shape=(self.tokens,),
                    raw_dtype="int32",
                    raw_range=(0.0, found.vocabulary - 1.0),
                    text=TextSpec(vocabulary=found.vocabulary, padding=found.padding, tokenizer=digest),
                ),
                head=HeadSpec(classes=len(found.names), labels=found.names),
                data=digest_json([found.carved.data, digest]),
            )
        return self._spec

    @property
    def sizes(self) -> SplitSizes:
        """Number of texts in each split."""
        return self._found().carved.sizes

    def split(self, name: SplitName) -> Split:
        """Return one split, the same on every machine."""
        return self._found().carved.split(name)

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        """Return top-1 of outputs (N, classes). Raises ValueError if shapes don't match."""
        return top1(outputs, labels)

    def shipped(self) -> Mapping[str, bytes]:
        """Return the tokenizer: `tokenizer.json`."""
        return {TOKENIZER: self._found().tokenizer}

    def texts(self) -> list[str]:
        """Return the texts of all parts. Raises ConfigurationError like `spec`."""
        return [text.text for text in self._listed()]

    def _found(self) -> _Encoded:
        if self._encoded is None:
            self._encoded = self._encode()
        return self._encoded

    def _origin(self) -> Path:
        origin = self.file or self.root
        assert origin is not None, "one of them is given"
        return origin

    def _encode(self) -> _Encoded:
        texts = self._listed()
        names = self.labels or class_order({text.label for text in texts if text.part == "train"})
        numbers = {name: number for number, name in enumerate(names)}
        if unknown := sorted({text.label for text in texts} - set(names)):
            raise ConfigurationError.one(
                f"{self._origin()}: the class `{unknown[0]}` has no training text, or is not in `labels`",
                "give it some and name every class, or take it out",
            )
        if len(names) < 2:
            raise ConfigurationError.one(f"{self._origin()}: two classes with training texts are needed")
        labels = np.asarray([numbers[text.label] for text in texts], np.int64)
        keys = np.asarray([_key(text.text) for text in texts], np.uint64)
        parts = parted(
            [text.part for text in texts], keys, labels, self.test, self.validation, str(self._origin()), "texts"
        )
        words = [text.text[: _LETTERS * self.tokens] for text in texts]
        if self.tokenizer is None:
            tokenizer = learnt([words[at] for at in parts["train"]], self.vocabulary)
        else:
            tokenizer = read_tokenizer(self.tokenizer)
        content, padding = fitted(tokenizer, self.tokens)
        ids = encoded(tokenizer, [text.text for text in texts], self.tokens)
        whole = LabelledImages(ids, labels)
        carved = CarvedImages(
            what=str(self._origin()),
            train=whole.take(parts["train"]),
            test=lambda: whole.take(parts["test"]),
            validation=whole.take(parts["validation"]),
            validation_fraction=self.validation,
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )
        return _Encoded(carved, names, content.encode(), tokenizer.get_vocab_size(), padding)

    def _listed(self) -> list[_Text]:
        return self._of_file() if self.file is not None else self._of_folder()

    def _of_file(self) -> list[_Text]:
        assert self.file is not None
        found, problems = list[_Text](), list[Problem]()
        for line, row in csv_rows(self.file, ("text", "label")):
            text, label, split = (row.get(column, "").strip() for column in ("text", "label", "split"))
            part = PART_NAMES.get(split.lower() or "train")
            if not text or not label:
                problems.append(Problem(f"`{'label' if text else 'text'}` is empty", "give both", self._line(line)))
            elif part is None:
                problems.append(Problem(f"split is `{split}`", "train, validation or test", self._line(line)))
            else:
                found.append(_Text(text, label, part))
        if more := problems[_NAMED:]:
            problems = [*problems[:_NAMED], Problem(f"{len(more)} more lines are wrong", "", Place(str(self.file)))]
        if problems:
            raise ConfigurationError(problems)
        return found

    def _of_folder(self) -> list[_Text]:
        assert self.root is not None
        files = find_classes(self.root, TEXT_SUFFIXES, "texts").parts
        return [_Text(_read(path), name, part) for part, own in files.items() for path, name in own]

    def _line(self, line: int) -> Place:
        return Place(str(self._origin()), line)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError.one(f"can't be read: {error}", "write it as UTF-8", Place(str(path))) from error
    if not text:
        raise ConfigurationError.one("holds no text", "take it out", Place(str(path)))
    return text
