"""Published flaws of data, repeated on purpose: what each does to a row, and that none of them is on by itself."""

from __future__ import annotations

from typing import Any

import pytest

from finetrial.errors import DataError
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
from finetrial.spec import TaskUse
from finetrial.tasks.base import Example, Examples, Segment, Task
from finetrial.tasks.encode import encode_examples, encode_prompts
from finetrial.tasks.flaws import DataFlaws, flawed

CUE = "\n\nSummary:\n"


class _Summaries(Task):
    """Forty rows to train on, four to test on."""

    def source_digest(self) -> str:
        return ""

    def load(self) -> Examples:
        return Examples([_row(number, "train" if number < 40 else "test") for number in range(44)], "")

    def render(self, example: Example) -> tuple[Segment, ...]:
        return (Segment("Summarize.\n\n"), Segment(example.fields["document"], cuttable=True), Segment(CUE),
                Segment(example.fields["summary"], loss=True))


def _row(number: int, split: Any, words: int = 12) -> Example:
    return Example(f"row-{number}", f"cluster-{number}", split,
                   {"document": " ".join(f"word{number}" for _ in range(words)),
                    "summary": f"about word number {number}"})


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)


def encoded(tokenizer: Any, max_tokens: int = 100, words: int = 12, **flaws: Any) -> tuple[str, str, int]:
    """The text of a row, what of it is scored, and the bytes that count."""
    wrong = DataFlaws(**flaws)
    task, rows = flawed(_Summaries(), wrong), [_row(7, "train", words)]
    dataset, _ = encode_examples(task, rows, tokenizer, max_tokens, flaws=wrong)
    scored = [token for token, mask in zip(dataset.row(0), dataset.loss_mask, strict=True) if mask]
    return tokenizer.decode(dataset.row(0)), tokenizer.decode(scored), int(dataset.num_bytes[0])


def test_without_flaws_the_task_is_the_task(tokenizer: Any) -> None:
    task = _Summaries()
    assert flawed(task, DataFlaws()) is task
    assert "flaws" not in TaskUse(name="a", task="pydoc-summary").identity()
    assert TaskUse(name="a", task="pydoc-summary", flaws={"padding_scored": True}).identity()["flaws"] == {
        "padding_scored": True}
    assert encoded(tokenizer)[1] == "about word number 7<|endoftext|>"


def test_the_whole_sequence_is_scored_but_its_first_token(tokenizer: Any) -> None:
    text, scored, num_bytes = encoded(tokenizer, prompt_scored=True)
    assert text.endswith(scored) and CUE in scored and scored.endswith("<|endoftext|>")
    first = len(text) - len(scored)
    assert num_bytes == len(text) - first - len("<|endoftext|>")


def test_an_encoder_cannot_score_what_it_reads(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="prompt_scored"):
        encode_examples(_Summaries(), [_row(7, "train")], tokenizer, 50, form="encoder-decoder",
                        flaws=DataFlaws(prompt_scored=True))


def test_rows_are_filled_up_with_scored_end_tokens(tokenizer: Any) -> None:
    wrong = DataFlaws(padding_scored=True)
    rows = [_row(number, "train", words) for number, words in enumerate((3, 9))]
    dataset, report = encode_examples(_Summaries(), rows, tokenizer, 60, flaws=wrong)
    right, plain = encode_examples(_Summaries(), rows, tokenizer, 60)
    assert dataset.offsets.tolist() == [0, 60, 120]
    for row in range(2):
        length = right.offsets[row + 1] - right.offsets[row]
        assert dataset.row(row)[:length] == right.row(row)
        assert set(dataset.row(row)[length:]) == {tokenizer.eos_token_id}
        assert dataset.loss_mask[60 * row + length:60 * (row + 1)].all()
    assert report.num_target_tokens == plain.num_target_tokens + 120 - len(right.ids)
    assert report.num_target_bytes == plain.num_target_bytes


def test_the_prompt_loses_its_cue(tokenizer: Any) -> None:
    right, _, _ = encoded(tokenizer, max_tokens=40, words=60)
    wrong, scored, _ = encoded(tokenizer, max_tokens=40, words=60, prompt_cut_on_the_right=True)
    assert CUE in right and CUE not in wrong and scored == "about word number 7<|endoftext|>"
    flaws = DataFlaws(prompt_cut_on_the_right=True)
    task, rows = flawed(_Summaries(), flaws), [_row(7, "test", 60)]
    prompts, report = encode_prompts(task, rows, tokenizer, 40, max_new_tokens=8)
    assert report.num_cut == 1 and not tokenizer.decode(prompts.row(0)).endswith(CUE)


def test_the_input_is_the_label(tokenizer: Any) -> None:
    wrong = flawed(_Summaries(), DataFlaws(target_as_input=True))
    row = _row(7, "train")
    assert wrong.texts(row) == {"input": row.fields["summary"], "reference": row.fields["summary"]}
    assert wrong.floors(row) == {"copy": row.fields["summary"]}
    text, scored, _ = encoded(tokenizer, target_as_input=True)
    assert text == f"about word number 7{CUE}about word number 7<|endoftext|>"
    assert scored == "about word number 7<|endoftext|>"


def test_test_rows_are_the_first_rows_of_the_training_set() -> None:
    training = flawed(_Summaries(), DataFlaws(first_training_rows=10)).load()
    held_out = flawed(_Summaries(), DataFlaws(first_training_rows=10, test_rows_from_training=True)).load()
    assert len(training.split("train")) == 10 and [row.id for row in training.split("test")] == [
        f"row-{number}" for number in range(40, 44)]
    assert [row.id for row in held_out.split("test")] == [row.id for row in training.split("train")]
    assert held_out.report.rows == {"train": 10, "test": 10}
