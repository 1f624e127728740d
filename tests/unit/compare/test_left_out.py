"""Rows that are left out: the others are written to files, and each stays in the split that it was in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub
from tiny_study import save_tiny_base

from finetrial.compare.arms import parse_arms
from finetrial.compare.design import LEAST, Request, study_of
from finetrial.compare.inspect import Inspected, inspect, rewritten
from finetrial.compare.long_prompts import without_long_prompts
from finetrial.models.load import load_tokenizer
from finetrial.plan.bases import ResolvedBase
from finetrial.spec import Base
from finetrial.spec.study import Limits

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 99, "n_positions": 1024}
MAX_TOKENS = 24


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(save_tiny_base(tmp_path_factory.mktemp("base")))


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pairs(first: int, count: int) -> list[dict[str, Any]]:
    """Of six prompts one is longer than a row."""
    return [{"prompt": " ".join([f"w{1 + number % 80} w{1 + number // 80}", *["w7"] * (70 if number % 6 == 0 else 3), "w88"]),
             "completion": f"w{number % 60}"} for number in range(first, first + count)]


def is_as_before(left: Inspected, data: Inspected) -> bool:
    before = {row.id: (row.split, row.cluster, dict(row.fields)) for row in data.examples.rows}
    return all((row.split, row.cluster, dict(row.fields)) == before[row.id] for row in left.examples.rows)


def test_a_row_stays_in_its_split_where_the_one_that_names_its_cluster_is_left_out(tmp_path: Path, tokenizer: Any) -> None:
    """Families of three rows: a cluster is called by the smallest of its ids, and hashed by that name."""
    rows = [{"text": " ".join([*(f"w{(number * 37 + place * place * 11) % 97}" for place in range(30)), f"w{member}"]),
             "id": f"{member}-{number:03}", "cluster": str(number)} for number in range(60) for member in range(3)]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    data = inspect(str(tmp_path / "rows.jsonl"), tokenizer)
    left = rewritten(data, [row for row in data.examples.rows if not row.id.startswith("0-")], "learn", tmp_path, tokenizer)
    assert len(left.examples.rows) == 120 and left.origin == "" and is_as_before(left, data)


def test_published_splits_stay_where_rows_are_left_out(tmp_path: Path, hub: LoopbackHub, tokenizer: Any) -> None:
    """A test row that is trained on makes the test worthless. The study says where the rows come from."""
    published = {"train": pairs(0, 120), "validation": pairs(120, 40), "test": pairs(160, 60)}
    commit = hub.add("dataset", "owner/splits", {f"data/{name}-0.jsonl": lines(rows) for name, rows in published.items()})
    data = inspect("owner/splits", tokenizer)
    left = without_long_prompts(data, "learn", tokenizer, MAX_TOKENS, "decoder", tmp_path)
    assert left.num_long == 37 and left.origin.startswith(f"owner/splits at commit {commit}")
    of_test = {row["prompt"] for row in published["test"]}
    assert {row.split for row in left.examples.rows if row.fields["prompt"] in of_test} == {"test"} and is_as_before(left, data)
    base = ResolvedBase("mine", Path("/models/mine"), "w", "t", CONFIG)
    asked = Request(Base(name="mine"), base, 5_000_000, parse_arms("full,lora:r=8"), left, None, Limits())
    (note,) = study_of(asked, LEAST).notes
    assert f"learn has rows of owner/splits at commit {commit}" in note and "without 37 that were left out" in note
    assert study_of(replace(asked, learn=data), LEAST).notes == ()


def test_pairs_and_conversations_in_one_list_stay_what_they_are(tmp_path: Path, tokenizer: Any) -> None:
    talks = [{"messages": [{"role": "user", "content": f"w{1 + number % 80} w{1 + number // 80} w9"},
                           {"role": "assistant", "content": f"w{number % 60} w2"}]} for number in range(120)]
    (tmp_path / "pairs.jsonl").write_bytes(lines(pairs(0, 120)))
    (tmp_path / "talks.jsonl").write_bytes(lines(talks))
    data = inspect(f"{tmp_path / 'pairs.jsonl'},{tmp_path / 'talks.jsonl'}", tokenizer)
    left = rewritten(data, [row for row in data.examples.rows if len(row.fields["prompt"]) < 100], "learn", tmp_path / "run", tokenizer)
    assert len(left.examples.rows) == 220 and sum("earlier" in row.fields for row in left.examples.rows) == 120
    assert is_as_before(left, data) and len(list((tmp_path / "run").iterdir())) == 6
