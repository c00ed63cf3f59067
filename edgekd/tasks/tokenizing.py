"""Tokenization by the library `tokenizers`: byte-pair merges learnt from texts, or a given file.

A tokenizer file (``tokenizer.json``) is complete: cutting and padding to so many tokens are part of it, so that the
file alone gives the ids that the model was trained on: ``Tokenizer.from_file(path).encode(text).ids``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, Place

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TOKENIZER", "encoded", "fitted", "learnt", "read_tokenizer"]

TOKENIZER = "tokenizer.json"
"""Name of the file in a bundle."""

PADDING, UNKNOWN = "[PAD]", "[UNK]"
_PADDINGS = (PADDING, "<pad>", "<PAD>", "[pad]", "<|pad|>")
_LEAST_SEEN = 2  # times that two pieces stand together before they are merged


def learnt(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn byte-pair encoding (Sennrich et al.

    2016, arXiv 1508.07909) of lower-case words, at most ``vocabulary`` ids.

    Id 0 is padding, id 1 is unknown. The same texts give the same tokenizer, unlike the library's WordPiece, whose ids
    depend on the process.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=_LEAST_SEEN,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``. Raises ConfigurationError if it is invalid, or has no padding token."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise ConfigurationError.one(
            f"is no tokenizer of the library `tokenizers`: {error}",
            "give a tokenizer.json, or leave `tokenizer` out: one is learnt from the training texts",
            Place(str(path)),
        ) from error
    if _padding_of(tokenizer) is None:
        raise ConfigurationError.one(
            f"has no token for padding ({', '.join(_PADDINGS)})",
            "add one: tokenizer.add_special_tokens(['[PAD]'])",
            Place(str(path)),
        )
    return tokenizer


def fitted(tokenizer: Tokenizer, tokens: int) -> tuple[str, int]:
    """Return a tokenizer's file with every text cut or padded to ``tokens`` ids, and the padding id."""
    padding = _padding_of(tokenizer)
    assert padding is not None, "looked at when it was read"
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens, pad_id=padding[1], pad_token=padding[0])
    return tokenizer.to_str(), padding[1]


def encoded(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> NDArray[np.int32]:
    """Return ids (N, tokens) of texts, by a tokenizer that is `fitted`."""
    rows = tokenizer.encode_batch(list(texts))
    return np.asarray([row.ids for row in rows], np.int32).reshape(len(texts), tokens)


def _padding_of(tokenizer: Tokenizer) -> tuple[str, int] | None:
    named = [str(tokenizer.padding["pad_token"])] if tokenizer.padding else []
    known = ((name, tokenizer.token_to_id(name)) for name in (*named, *_PADDINGS))
    return next(((name, number) for name, number in known if number is not None), None)
