"""Segments to tokens: what is cut, what is scored, and whose bytes are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_by_hand import ByHand

from finetrial.errors import DataError
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
from finetrial.tasks.base import Example, Segment
from finetrial.tasks.encode import TokenDataset, encode_examples, encode_segments, preview, surrounding_ids

END = "<|endoftext|>"


class _Echo(ByHand):
    """Renders `prompt`, `code` and `reply` as they are; plain text if there is no prompt."""

    def render(self, example: Example) -> tuple[Segment, ...]:
        fields = example.fields
        if "prompt" not in fields:
            return (Segment(fields["reply"], loss=True, cuttable=True),)
        return (Segment(fields["prompt"]), Segment(fields["code"], cuttable=True), Segment("\n\n>>"),
                Segment(fields["reply"], loss=True))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)


def _row(name: str, **fields: str) -> Example:
    return Example(name, f"cluster {name}", "train", fields)


CHAT = (Segment("Explain:\n"), Segment("def f(x):\n    return x + 1", cuttable=True), Segment("\n\n>>"),
        Segment("Adds one.", loss=True))


def test_reply_rows_score_the_reply_and_the_end_token(tokenizer: Any) -> None:
    row = encode_segments(CHAT, tokenizer, 100)
    scored = [token for token, is_scored in zip(row.ids, row.loss_mask, strict=True) if is_scored]
    assert tokenizer.decode(scored) == "Adds one." + END
    assert tokenizer.decode(row.ids) == "".join(segment.text for segment in CHAT) + END
    assert (row.num_cut_tokens, row.num_lost_target_tokens, row.target_bytes) == (0, 0, len("Adds one."))


def test_only_the_document_is_cut_and_at_its_end(tokenizer: Any) -> None:
    whole = encode_segments(CHAT, tokenizer, 100)
    row = encode_segments(CHAT, tokenizer, len(whole.ids) - 4)
    assert row.num_cut_tokens == 4 and len(row.ids) == len(whole.ids) - 4
    text = tokenizer.decode(row.ids)
    assert text.startswith("Explain:\ndef f(x):") and text.endswith("\n\n>>Adds one." + END)
    assert row.target_bytes == whole.target_bytes


def test_a_row_whose_target_does_not_fit_is_not_encoded(tokenizer: Any) -> None:
    fixed = encode_segments((CHAT[0], CHAT[2], CHAT[3]), tokenizer, 100)
    assert encode_segments(CHAT, tokenizer, len(fixed.ids)).ids != []
    row = encode_segments(CHAT, tokenizer, len(fixed.ids) - 1)
    assert row.ids == [] and row.loss_mask == [] and row.target_bytes == 0
    assert row.num_lost_target_tokens == sum(fixed.loss_mask)


def test_plain_text_scores_all_but_the_first_token_and_has_no_end(tokenizer: Any) -> None:
    text = "import os\n\nprint(os.name)"
    row = encode_segments((Segment(text, loss=True, cuttable=True),), tokenizer, 100)
    assert row.ids == tokenizer(text)["input_ids"]
    assert row.loss_mask == [False] + [True] * (len(row.ids) - 1)
    assert row.target_bytes == len(text) - len("import")


def test_cut_plain_text_counts_lost_tokens_and_kept_bytes(tokenizer: Any) -> None:
    text = "größe = 'naïve' and kept\n and lost words"
    all_ids = tokenizer(text)["input_ids"]
    keep = next(count for count in range(len(all_ids)) if tokenizer.decode(all_ids[:count]).endswith("kept"))
    row = encode_segments((Segment(text, loss=True, cuttable=True),), tokenizer, keep)
    assert row.ids == all_ids[:keep] and row.num_lost_target_tokens == len(all_ids) - keep
    first = tokenizer.decode(all_ids[:1])
    assert row.target_bytes == len(f"{text[len(first):].partition('kept')[0]}kept".encode())


def test_plain_text_of_one_token_has_nothing_to_score(tokenizer: Any) -> None:
    assert encode_segments((Segment("import", loss=True),), tokenizer, 10).ids == []


def test_text_never_makes_special_tokens(tokenizer: Any) -> None:
    row = encode_segments((Segment(f"a {END} b", loss=True),), tokenizer, 50)
    assert tokenizer.eos_token_id not in row.ids
    assert tokenizer.decode(row.ids) == f"a {END} b"


def test_an_opening_token_is_context_and_makes_the_first_token_scored(tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(  # as Llama's: a start token, no end token
        single=f"{END} $A", special_tokens=[(END, 0)])
    assert surrounding_ids(tokenizer) == ([0], [])
    row = encode_segments((Segment("import os", loss=True),), tokenizer, 50)
    assert row.ids == tokenizer("import os")["input_ids"]
    assert row.loss_mask == [False] + [True] * (len(row.ids) - 1)
    assert row.target_bytes == len("import os")


def test_no_end_token_is_an_error_for_replies_only(tokenizer: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    assert encode_segments((Segment("import os", loss=True),), bare, 10).ids
    with pytest.raises(DataError, match="end-of-text"):
        encode_segments(CHAT, bare, 100)


def test_encode_examples_equals_rows_one_by_one(tokenizer: Any) -> None:
    rows = [_row(f"r{number}", prompt="Explain:\n", code="x = 1\n" * number, reply="word " * (number % 7 + 1))
            for number in range(40)]
    dataset, report = encode_examples(_Echo(), rows, tokenizer, 40)
    single = [encode_segments(_Echo().render(row), tokenizer, 40) for row in rows]
    for index, encoded in enumerate(single):
        start, end = dataset.offsets[index:index + 2]
        assert dataset.ids[start:end].tolist() == encoded.ids
        assert dataset.loss_mask[start:end].tolist() == encoded.loss_mask
    assert dataset.num_bytes.tolist() == [encoded.target_bytes for encoded in single]
    assert dataset.items == [row.id for row in rows] and dataset.clusters[3] == "cluster r3"
    assert report.num_rows == 40 and report.num_dropped == 0
    assert report.num_cut == sum(encoded.num_cut_tokens > 0 for encoded in single) > 0
    assert report.num_target_tokens == int(dataset.loss_mask.sum())
    assert report.as_dict()["num_target_bytes"] == int(dataset.num_bytes.sum())


def test_limit_takes_the_first_that_fit(tokenizer: Any) -> None:
    rows = [_row(f"r{number}", prompt="p", code="c", reply="long " * (200 if number % 2 else 2))
            for number in range(20)]
    dataset, report = encode_examples(_Echo(), rows, tokenizer, 50, limit=5)
    assert dataset.items == ["r0", "r2", "r4", "r6", "r8"]
    assert (report.num_rows, report.num_dropped, report.num_dropped_prompts) == (5, 4, 0)
    everything, report = encode_examples(_Echo(), rows, tokenizer, 50)
    assert (len(everything), report.num_dropped) == (10, 10)


def test_rows_whose_prompt_leaves_no_room_are_counted_apart(tokenizer: Any) -> None:
    """They would fit whole; with room for what is generated they do not, and shorter answers are the mend."""
    rows = [_row(f"r{number}", prompt="p", code="c", reply="short ") for number in range(4)]
    size = len(encode_examples(_Echo(), rows, tokenizer, 200)[0].row(0))
    _, report = encode_examples(_Echo(), rows, tokenizer, size, max_new_tokens=size - 1)
    assert (report.num_rows, report.num_dropped, report.num_dropped_prompts) == (0, 4, 4)


def test_preview_shows_tokens_and_the_mask(tokenizer: Any) -> None:
    shown = preview(_Echo(), [_row("a", prompt="Explain:\n", code="x", reply="Adds one.")] * 5, tokenizer, 50, n=2)
    assert len(shown) == 2
    assert "".join(text for text, _ in shown[0]) == "Explain:\nx\n\n>>Adds one." + END
    assert "".join(text for text, scored in shown[0] if scored) == "Adds one." + END


words = st.text(st.sampled_from("ab é\n_(1"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(words, words, words, st.integers(4, 60))
def test_invariants(tokenizer: Any, prompt: str, code: str, reply: str, max_tokens: int) -> None:
    segments = _Echo().render(_row("r", prompt=prompt, code=code, reply=reply))
    row = encode_segments(segments, tokenizer, max_tokens)
    assert len(row.ids) == len(row.loss_mask) <= max_tokens
    if row.ids:
        assert row.target_bytes == len(reply.encode("utf-8"))
        assert tokenizer.decode(row.ids).endswith(">>" + reply + END)
        assert tokenizer.decode(row.ids).startswith(prompt)
        assert row.num_cut_tokens == 0 or len(row.ids) == max_tokens


def _dataset() -> TokenDataset:
    return TokenDataset(np.arange(6, dtype=np.int32), np.asarray([0, 1, 0, 1, 1, 0], dtype=bool),
                        np.asarray([0, 2, 2, 6]), np.asarray([3, 0, 9]), ["a", "b", "ç"], ["x", "x", "y"],
                        np.asarray([7, 8, 9], dtype=np.int32), np.asarray([0, 1, 1, 3]))


def test_save_and_load(tmp_path: Path) -> None:
    dataset = _dataset()
    dataset.save(tmp_path / "a.npz")
    dataset.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = TokenDataset.load(tmp_path / "a.npz")
    assert loaded.items == dataset.items and loaded.clusters == dataset.clusters
    assert loaded.digest() == dataset.digest()
    assert loaded.ids.dtype == np.int32 and loaded.loss_mask.dtype == np.bool_ and loaded.offsets.dtype == np.int64


def test_select() -> None:
    chosen = _dataset().select([2, 0, 2])
    assert chosen.ids.tolist() == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert chosen.offsets.tolist() == [0, 4, 6, 10]
    assert chosen.items == ["ç", "a", "ç"] and chosen.num_bytes.tolist() == [9, 3, 9]
    assert chosen.source_ids is not None and chosen.source_ids.tolist() == [8, 9, 7, 8, 9]
    assert len(_dataset().select([])) == 0
    assert _dataset().select([0, 1, 2]).digest() == _dataset().digest() != chosen.digest()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text"])
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match="not an encoded dataset"):
        TokenDataset.load(tmp_path / "bad.npz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz"):
        TokenDataset.load(tmp_path / "none.npz")
