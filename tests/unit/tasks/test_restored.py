"""What tokens do not give back of the text they stand for."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from rows_by_hand import REAL, ByHand
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from finetrial.models.load import load_tokenizer
from finetrial.plan.bases import BUNDLED
from finetrial.tasks.base import Example, Segment
from finetrial.tasks.encode import encode_examples
from finetrial.tasks.restored import MOST_ROWS, lost_bytes

TOKENIZERS = REAL / "tokenizers"
CODE = "def add(left, right):\n    return left + right  # ◊\n"
PROSE = "Adds two numbers. Slowly, it is said."
Form = Literal["decoder", "encoder-decoder"]


class _Pairs(ByHand):
    def render(self, example: Example) -> tuple[Segment, ...]:
        prompt = example.fields["prompt"]
        return (*([Segment(prompt)] if prompt else []), Segment(example.fields["reply"], loss=True, cuttable=not prompt))


def _lost(tokenizer: Any, form: Form, reply: str, prompt: str = "Write:\n", count: int = 3) -> tuple[int, int]:
    rows = [Example(f"r{number}", "c", "test", {"prompt": prompt, "reply": reply}) for number in range(count)]
    dataset, _ = encode_examples(_Pairs(), rows, tokenizer, 256, form=form)
    return lost_bytes(dataset, tokenizer, form)


@pytest.mark.parametrize(("name", "form"), [("tiny-gpt", "decoder"), ("tiny-t5", "encoder-decoder")])
def test_bytes_lose_nothing(name: str, form: Form) -> None:
    tokenizer = load_tokenizer(BUNDLED / name)
    assert _lost(tokenizer, form, CODE) == (3 * len(CODE.encode()), 0)
    num_bytes, num_lost = _lost(tokenizer, form, CODE, prompt="")  # the first token, or half, is context
    assert 0 < num_bytes < 3 * len(CODE.encode()) and num_lost == 0
    assert _lost(tokenizer, form, CODE, count=MOST_ROWS + 5)[0] == MOST_ROWS * len(CODE.encode())


def test_an_unknown_letter_is_lost_and_a_space_mark_is_not() -> None:
    """As Llama 2's, but of a few letters."""
    letters = {letter: number for number, letter in enumerate(["<unk>", "</s>", "▁", *"HiSo"])}
    core = Tokenizer(models.BPE(letters, [], unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    assert _lost(tokenizer, "decoder", "  So Hi", prompt="Hi") == (21, 0)
    assert _lost(tokenizer, "decoder", "So ÄÄ Hi", prompt="Hi") == (30, 12)
    assert _lost(tokenizer, "decoder", " So", prompt="Hi") == (9, 0)


@pytest.mark.parametrize(("name", "loses"), [("t5", True), ("codet5/hf", False), ("gpt2/hf", False)])
def test_real_tokenizers(name: str, loses: bool) -> None:
    """T5's has no line breaks, no runs of spaces and no braces."""
    from transformers import AutoTokenizer

    if not (TOKENIZERS / name).is_dir():
        pytest.skip(f"no real tokenizer at {TOKENIZERS / name}")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / name)
    form: Form = "decoder" if name == "gpt2/hf" else "encoder-decoder"
    num_bytes, num_lost = _lost(tokenizer, form, CODE)
    assert num_bytes == 3 * len(CODE.encode()) and (num_lost > 0.1 * num_bytes if loses else num_lost == 0)
    assert _lost(tokenizer, form, PROSE) == (3 * len(PROSE), 0)
