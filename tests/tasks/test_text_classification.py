"""Texts as ids of tokens: files and folders, the tokenizer, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import Task
from edgekd.tasks.text_classification import TextClassification
from edgekd.tasks.tokenizing import learnt
from edgekd.testing.contracts.task import TaskContract
from tests.tasks.reviews import reviews, written


def task_of(folder: Path, **options: object) -> TextClassification:
    return TextClassification.model_validate({"tokens": 10, "vocabulary": 100, **options}, context={"folder": folder})


class TestTextClassification(TaskContract):
    @pytest.fixture
    def make_task(self, tmp_path: Path) -> Callable[[], Task]:
        written(tmp_path)
        return lambda: task_of(tmp_path, file="reviews.csv")


def test_the_tokenizer_is_learnt_from_training_texts_alone(tmp_path: Path) -> None:
    rows = [*(f"{text},{label},train" for text, label in reviews(40)), "zyzzyva zyzzyva,good,test", "dull,bad,test"]
    rows += ["qoph qoph qoph,bad,validation", "best,good,validation"]
    (tmp_path / "r.csv").write_text("\n".join(["text,label,split", *rows]))
    task = task_of(tmp_path, file="r.csv")
    tokenizer = Tokenizer.from_str(task.shipped()["tokenizer.json"].decode())
    assert {"z", "q"}.isdisjoint("".join(tokenizer.get_vocab()))
    assert tokenizer.get_vocab_size() == task.spec.input.text.vocabulary <= 100
    assert task.sizes.test == 2


def test_the_shipped_tokenizer_gives_the_ids_that_were_trained_on(tmp_path: Path) -> None:
    written(tmp_path)
    task = task_of(tmp_path, file="reviews.csv")
    tokenizer = Tokenizer.from_str(task.shipped()["tokenizer.json"].decode())
    rows = {tuple(tokenizer.encode(text).ids) for text, _ in reviews(120)}
    assert {tuple(row) for row in task.split("test").inputs.tolist()} <= rows
    assert tokenizer.encode("a").ids[4:] == [task.spec.input.text.padding] * 6
    assert len(tokenizer.encode("the film " * 20).ids) == 10


def test_the_same_texts_give_the_same_tokenizer() -> None:
    texts = [text for text, _ in reviews(60)]
    assert learnt(texts, 80).to_str() == learnt(texts, 80).to_str()


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for number, (text, label) in enumerate(reviews(60)):
        place = tmp_path / "texts" / label / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    task, listed = task_of(tmp_path, root="texts"), task_of(written(tmp_path, 60).parent, file="reviews.csv")
    assert task.spec.head.labels == ("bad", "good")
    for name in ("train", "validation", "test"):
        ours, theirs = task.split(name), listed.split(name)
        assert sorted(map(tuple, ours.inputs.tolist())) == sorted(map(tuple, theirs.inputs.tolist()))


def test_a_tokenizer_that_is_given_is_kept_but_for_its_length(tmp_path: Path) -> None:
    own = learnt([text for text, _ in reviews(60)], 60)
    own.save(str(tmp_path / "own.json"))
    written(tmp_path)
    task = TextClassification.model_validate(
        {"file": "reviews.csv", "tokens": 6, "tokenizer": "own.json"}, context={"folder": tmp_path}
    )
    shipped = json.loads(task.shipped()["tokenizer.json"])
    assert shipped["model"] == json.loads(own.to_str())["model"]
    assert shipped["truncation"]["max_length"] == 6
    assert task.split("train").inputs.max() < own.get_vocab_size()
    assert task.split("train").inputs.dtype == np.int32


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("sentence,label\nfine,good", "text and label are expected"),
        ("text,label\nfine,\n,bad", "`label` is empty"),
        ("text,label,split\nfine,good,dev", "split is `dev`"),
        ("text,label\nfine,good\nbest,good\nlovely,good", "two classes with training texts are needed"),
        ("text,label,split\nfine,good,train\nsad,bad,train\nodd,other,test", "the class `other` has no training text"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "r.csv").write_text(rows)
    with pytest.raises(ConfigurationError, match=said):
        _ = task_of(tmp_path, file="r.csv").spec


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    bare = json.loads(learnt(["fine and fine"], 40).to_str())
    bare["added_tokens"] = []
    bare["model"]["vocab"] = {(token if token != "[PAD]" else "x"): at for token, at in bare["model"]["vocab"].items()}
    (tmp_path / "own.json").write_text(json.dumps(bare))
    written(tmp_path)
    with pytest.raises(ConfigurationError, match="has no token for padding"):
        _ = TextClassification.model_validate(
            {"file": "reviews.csv", "tokenizer": "own.json"}, context={"folder": tmp_path}
        ).spec


def test_one_source_is_given(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give `file`, a CSV of text and label, or `root`"):
        task_of(tmp_path)
