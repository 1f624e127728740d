"""Prompts that do not fit: what would lose its cue is left out and counted, what loses nothing stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_study import save_tiny_base

from finetrial.compare.inspect import Inspected, inspect
from finetrial.compare.long_prompts import without_long_prompts
from finetrial.errors import DataError
from finetrial.models.load import load_tokenizer
from finetrial.plan.audit.truncated_cues import common_end, contexts_in, ends_with
from finetrial.tasks.encode import encode_examples

MAX_TOKENS = 24


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(save_tiny_base(tmp_path_factory.mktemp("base")))


def parallel(folder: Path, tokenizer: Any, *, num_long: int, end: str = "w88") -> Inspected:
    """200 pairs of lines, of which some are three times as long as a row may be."""
    prompts = [" ".join([f"w{1 + number % 80}", f"w{1 + number // 80}", *["w7"] * (70 if number < num_long else 3 + number % 5),
                         end or f"w{1 + number % 70}"]) for number in range(200)]
    (folder / "a.java").write_text("\n".join(prompts))
    (folder / "a.cs").write_text("\n".join(f"w{1 + number % 60} w{1 + number // 60}" for number in range(200)))
    return inspect(f"{folder / 'a.java'},{folder / 'a.cs'}", tokenizer)


@pytest.mark.parametrize("form", ["decoder", "encoder-decoder"])
def test_two_texts_whose_lines_end_alike(form: Any, tmp_path: Path, tokenizer: Any) -> None:
    data = parallel(tmp_path, tokenizer, num_long=15)
    if form == "encoder-decoder":
        tokenizer.bos_token = "<eos>"  # what a decoder begins with
    left = without_long_prompts(data, "learn", tokenizer, MAX_TOKENS, form, tmp_path / "run")
    assert left.num_long == 15 and len(left.examples.rows) == 185
    assert {row.id: (row.split, row.cluster) for row in left.examples.rows}.items() <= {
        row.id: (row.split, row.cluster) for row in data.examples.rows}.items()
    assert left.long_tokens == data.long_tokens and len(list((tmp_path / "run").glob("learn-*.jsonl"))) == 3
    rows, report = encode_examples(left.task, left.examples.rows, tokenizer, MAX_TOKENS, form=form)
    assert report.num_cut == 0
    whole = [prompt for prompt, is_full in contexts_in(rows, MAX_TOKENS) if not is_full]
    assert ends_with(whole[0], common_end(whole)) and len(common_end(whole)) > 0
    assert without_long_prompts(left, "learn", tokenizer, MAX_TOKENS, form, tmp_path / "run") is left


def test_prompts_without_a_common_end_are_cut_as_before(tmp_path: Path, tokenizer: Any) -> None:
    data = parallel(tmp_path, tokenizer, num_long=15, end="")
    assert without_long_prompts(data, "learn", tokenizer, MAX_TOKENS, "decoder", tmp_path / "run") is data
    assert not (tmp_path / "run").exists()


def test_too_many_to_leave_out(tmp_path: Path, tokenizer: Any) -> None:
    data = parallel(tmp_path, tokenizer, num_long=120)
    with pytest.raises(DataError, match="120 of 200 prompts of learn are longer than 24 tokens"):
        without_long_prompts(data, "learn", tokenizer, MAX_TOKENS, "decoder", tmp_path / "run")
