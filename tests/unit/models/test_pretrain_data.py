"""The tokenizer and the tokenised text of a bundled base."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from finetrial.models.bundled import pretrain_data
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER, encode_documents, tokenizer_texts
from finetrial.models.bundled.tokenizer import END_OF_TEXT, VOCABULARY_SIZE, train_tokenizer

TEXTS = [f"def area_{number}(width, height):\n    \"\"\"Gives the area.\"\"\"\n    return width * {number}\n\n\n"
         for number in range(50)]


def test_training_is_deterministic_and_plain_transformers_loads_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for name in ("a", "b"):
        train_tokenizer(TEXTS, tmp_path / name, vocabulary_size=320)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert len(tokenizer) <= 320 and tokenizer.eos_token == END_OF_TEXT and tokenizer.eos_token_id == 0


def test_the_bundled_tokenizer() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    assert len(tokenizer) == VOCABULARY_SIZE
    for text in (*TEXTS[:3], "naïve größe → 日本語 🙂\t\r\n x", "  \n\n   \n", "a\u00a0b"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("\n        return self.value")["input_ids"]) <= 5
    assert len(tokenizer("2024")["input_ids"]) == 4  # digits stand alone


def test_encode_documents_ends_each_and_only_there() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    texts = [*TEXTS, f"spelled {END_OF_TEXT} out"]
    ids, offsets = encode_documents(texts, tokenizer, batch=7)
    assert ids.dtype == np.uint16 and offsets[-1] == len(ids)
    np.testing.assert_array_equal(np.flatnonzero(ids == tokenizer.eos_token_id), offsets[1:] - 1)
    assert [tokenizer.decode(ids[a:b - 1]) for a, b in pairwise(offsets)] == texts


def test_tokenizer_texts_stops_at_the_limit() -> None:
    assert list(tokenizer_texts(["aaa", "bbb", "ccc"], limit_bytes=6)) == ["aaa", "bbb"]


def test_files_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_data, "pretrain_documents", lambda: TEXTS)
    monkeypatch.setattr(pretrain_data, "held_out_documents", lambda split: [(f"{split}/x.py", "né = 1\n"), ("y", "b")])
    monkeypatch.setattr(pretrain_data, "manifest", lambda documents: {
        "num_bytes": sum(map(len, documents)), "num_documents": len(documents)})
    facts = pretrain_data.write_pretrain_data(tmp_path / "a")
    again = pretrain_data.write_pretrain_data(tmp_path / "b")
    assert facts == again == json.loads((tmp_path / "a/manifest.json").read_text())
    for name in ("train.npy", "val.npz", "test.npz", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    ids = np.load(tmp_path / "a/train.npy")
    assert ids.dtype == np.uint16 and int((ids == 0).sum()) == len(TEXTS) and len(ids) == facts["num_tokens"]
    with np.load(tmp_path / "a/val.npz") as held_out:
        assert held_out["num_bytes"].tolist() == [8, 1] and held_out["paths"].tolist() == ["val/x.py", "y"]
        assert held_out["offsets"][-1] == len(held_out["ids"])
