"""Rows and prompts of encoder-decoders, and prompts of decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rows_by_hand import REAL, ByHand

from finetrial.errors import DataError
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
from finetrial.tasks.base import Example, Segment
from finetrial.tasks.encode import encode_examples, encode_prompts, encode_segments, preview, surrounding_ids

TOKENIZERS = REAL / "tokenizers"
CHAT = (Segment("Explain:\n"), Segment("def f(x):\n    return x + 1", cuttable=True), Segment("\n\n>>"),
        Segment("Adds one.", loss=True))
TEXT = (Segment("import os\n\nprint(os.name, 'größe')", loss=True, cuttable=True),)


class _Echo(ByHand):
    def render(self, example: Example) -> tuple[Segment, ...]:
        fields = example.fields
        return (Segment(fields["prompt"]), Segment(fields["code"], cuttable=True), Segment("\n\n>>"),
                Segment(fields["reply"], loss=True))


@pytest.fixture(params=["none", "closing", "both"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """The bundled tokenizer with the marks of a GPT-2, a T5 and a CodeT5."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    end, start = tokenizer.eos_token, tokenizer.convert_ids_to_tokens(7)
    template = {"none": "$A", "closing": f"$A {end}", "both": f"{start} $A {end}"}[request.param]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(end, tokenizer.eos_token_id), (start, 7)])
    return tokenizer


def _bare(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_prompt_is_read_and_reply_predicted_with_the_tokenizers_marks(tokenizer: Any) -> None:
    opening, closing = surrounding_ids(tokenizer)
    row = encode_segments(CHAT, tokenizer, 100, form="encoder-decoder")
    prompt = [token for segment in CHAT[:3] for token in _bare(tokenizer, segment.text)]
    assert row.source == [*opening, *prompt, *closing]
    assert row.ids == [*opening, *_bare(tokenizer, "Adds one."), tokenizer.eos_token_id]
    assert all(row.loss_mask) and len(row.loss_mask) == len(row.ids)
    assert row.target_bytes == len("Adds one.")


def test_each_side_has_a_row_of_its_own(tokenizer: Any) -> None:
    whole = encode_segments(CHAT, tokenizer, 100, form="encoder-decoder")
    assert whole.source is not None
    most = len(whole.source) - 3
    row = encode_segments(CHAT, tokenizer, most, form="encoder-decoder")
    assert row.source is not None and len(row.source) == most and row.num_cut_tokens == 3
    assert row.ids == whole.ids and row.num_lost_target_tokens == 0
    opening, closing = surrounding_ids(tokenizer)
    fixed = len(opening) + len(closing) + len(_bare(tokenizer, CHAT[0].text)) + len(_bare(tokenizer, CHAT[2].text))
    assert encode_segments(CHAT, tokenizer, max(fixed, len(whole.ids)), form="encoder-decoder").ids
    for most in (fixed - 1, len(whole.ids) - 1):
        row = encode_segments(CHAT, tokenizer, most, form="encoder-decoder")
        assert row.ids == [] and row.num_lost_target_tokens == len(_bare(tokenizer, "Adds one.")) + 1


@pytest.mark.parametrize("most", [100, 12, 7])
def test_of_plain_text_the_second_half_is_predicted(tokenizer: Any, most: int) -> None:
    opening, closing = surrounding_ids(tokenizer)
    row = encode_segments(TEXT, tokenizer, most, form="encoder-decoder")
    every = _bare(tokenizer, TEXT[0].text)
    kept = every[:most - len(opening) - len(closing)]
    half = len(kept) // 2
    assert row.source == [*opening, *kept[:half], *closing]
    assert row.ids == [*opening, *kept[half:]] and all(row.loss_mask)
    assert row.num_lost_target_tokens == row.num_cut_tokens == len(every) - len(kept)
    assert row.target_bytes == len(tokenizer.decode(kept[half:]).encode())


def test_a_text_too_short_to_halve_is_no_row(tokenizer: Any) -> None:
    assert encode_segments((Segment("import", loss=True),), tokenizer, 50, form="encoder-decoder").ids == []


def _rows(num: int = 12) -> list[Example]:
    return [Example(f"r{n}", "c", "test", {"prompt": "Explain:\n", "code": "x = 1\n" * n, "reply": f"sets x {n}"})
            for n in range(num)]


def test_a_data_set_of_pairs(tokenizer: Any) -> None:
    rows = _rows()
    dataset, report = encode_examples(_Echo(), rows, tokenizer, 40, form="encoder-decoder")
    single = [encode_segments(_Echo().render(row), tokenizer, 40, form="encoder-decoder") for row in rows]
    assert [dataset.row(n) for n in range(12)] == [row.ids for row in single]
    assert [dataset.source(n) for n in range(12)] == [row.source for row in single]
    assert dataset.loss_mask.all() and dataset.num_bytes.tolist() == [row.target_bytes for row in single]
    assert report.num_tokens == sum(len(row.ids) + len(row.source or []) for row in single)
    assert report.num_cut == sum(row.num_cut_tokens > 0 for row in single) > 0
    [shown] = preview(_Echo(), rows[2:], tokenizer, 40, n=1, form="encoder-decoder")
    assert [scored for _, scored in shown] == [False] * len(single[2].source or []) + [True] * len(single[2].ids)


def test_prompts_of_an_encoder_decoder_are_its_sources(tokenizer: Any) -> None:
    rows = _rows()
    dataset, _ = encode_examples(_Echo(), rows, tokenizer, 40, form="encoder-decoder", max_new_tokens=30)
    prompts, report = encode_prompts(_Echo(), rows, tokenizer, 40, max_new_tokens=30, form="encoder-decoder")
    assert [prompts.row(n) for n in range(12)] == [dataset.source(n) for n in range(12)]
    assert prompts.items == dataset.items and prompts.source_ids is None and not prompts.loss_mask.any()
    assert report.num_cut > 0


def test_prompts_of_a_decoder_leave_room_for_the_answer(tokenizer: Any) -> None:
    opening, _ = surrounding_ids(tokenizer)
    rows = _rows()
    dataset, _ = encode_examples(_Echo(), rows, tokenizer, 40, max_new_tokens=20)
    prompts, report = encode_prompts(_Echo(), rows, tokenizer, 40, max_new_tokens=20)
    cue = _bare(tokenizer, "\n\n>>")
    for n in range(12):
        whole = [*opening, *_bare(tokenizer, "Explain:\n"), *_bare(tokenizer, "x = 1\n" * n)]
        assert prompts.row(n) == [*whole[:20 - len(cue)], *cue]
        if len(whole) + len(cue) <= 20:
            assert dataset.row(n)[:len(prompts.row(n))] == prompts.row(n)
    assert 0 < report.num_cut < 12


def test_a_row_whose_instruction_leaves_no_room_is_dropped(tokenizer: Any) -> None:
    rows = [*_rows(3), Example("long", "c", "test", {"prompt": "why " * 12, "code": "x", "reply": "so"})]
    everything, _ = encode_examples(_Echo(), rows, tokenizer, 40)
    room, report = encode_examples(_Echo(), rows, tokenizer, 40, max_new_tokens=20)
    assert len(everything) == 4 and room.items == ["r0", "r1", "r2"] and report.num_dropped == 1
    with pytest.raises(DataError, match="max_new_tokens is 40, which leaves no room"):
        encode_prompts(_Echo(), rows, tokenizer, 40, max_new_tokens=40)


@pytest.mark.parametrize(("name", "opening", "closing"), [
    ("codet5/hf", [1], [2]), ("t5/src_flan_alpaca_base", [], [1]), ("gpt2/hf", [], [])])
def test_real_tokenizers(name: str, opening: list[int], closing: list[int]) -> None:
    """CodeT5's and T5's sources and labels are what their own tokenizers make of a text."""
    from transformers import AutoTokenizer

    if not (TOKENIZERS / name / "tokenizer.json").is_file() and not (TOKENIZERS / Path(name).parent / "tokenizer.json").is_file():
        pytest.skip(f"no real tokenizer at {TOKENIZERS / name}")
    folder = TOKENIZERS / name if (TOKENIZERS / name / "tokenizer.json").is_file() else TOKENIZERS / Path(name).parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert surrounding_ids(tokenizer) == (opening, closing)
    if not closing:
        return
    prompt, reply = "def add(a, b):\n    return a + b", "Adds two numbers."
    row = encode_segments((Segment(prompt, cuttable=True), Segment(reply, loss=True)), tokenizer, 64,
                          form="encoder-decoder")
    assert row.source == tokenizer(prompt)["input_ids"]
    assert row.ids == tokenizer(reply)["input_ids"]
    assert tokenizer.decode(row.ids, skip_special_tokens=True) == reply
    assert row.target_bytes == len(reply)
