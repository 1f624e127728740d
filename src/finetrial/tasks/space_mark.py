"""The space mark that some tokenizers put before every text: Llama 2's "▁Hi" for "Hi".

A row is tokenised in segments, but to the model it is one text, which has one such mark: at its beginning, and with most of
these tokenizers behind every special token too. `joined_pieces` gives a segment that goes on with the one before it
the tokens that it has there, which are those of the whole text wherever no token would span two segments. What an
encoder-decoder writes is a text of its own. `written` reads answers in the same way.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetrial.tasks.assemble import Form, Piece, tokenise
from finetrial.tasks.base import Segment

WORDS_APART = ("WhitespaceSplit", "Whitespace")  # pre-tokenizers behind which a mark stands before every word
CONTEXT = 16  # tokens of a prompt, to read an answer behind them


@dataclass(frozen=True)
class Unmarked:
    """A tokenizer without its space mark; `behind_special` says whether that stands behind special tokens too."""

    tokenizer: Any
    behind_special: bool


def goes_on(segments: Sequence[Segment], tokenizer: Any, form: Form = "decoder") -> list[bool]:
    """Of each segment of a row, whether its text begins without a space mark where the tokenizer makes such marks."""
    unmarked = without_mark(tokenizer)
    if unmarked is None:
        return [False] * len(segments)
    special = tuple(tokenizer.added_tokens_encoder) if unmarked.behind_special else ()
    found, text, is_marked = [], "", False
    for number, segment in enumerate(segments):
        if form == "encoder-decoder" and segment.loss and number and not segments[number - 1].loss:
            text = ""
        found.append(bool(text) and not (is_marked and text.endswith(special)))
        if segment.text:
            text, is_marked = segment.text, segment.markup
    return found


def joined_pieces(texts: Sequence[str], tokenizer: Any, *, markup: bool) -> list[Piece]:
    """The tokens of texts that go on with another: without a space mark before their first word."""
    unmarked = without_mark(tokenizer)
    assert unmarked is not None
    special = set(tokenizer.added_tokens_encoder.values()) if markup else set()
    found = []
    for plain, marked in zip(tokenise(texts, unmarked.tokenizer, markup=markup), tokenise(texts, tokenizer, markup=markup),
                             strict=True):
        first, again = _first(plain.ids, special), _first(marked.ids, special)
        found.append(Piece(plain.ids[:first] + marked.ids[again:], plain.ends[:first] + marked.ends[again:], plain.num_bytes))
    return found


def written(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int], *, form: Form) -> str:
    """The text that an answer's tokens add to their prompt, without special tokens.

    Where the tokenizer puts space marks, a decoder's answer is read behind the end of its prompt: alone it would lose the
    space that it begins with, and a line of code its depth. Behind a special token with a mark of its own it is alone.
    """
    unmarked = without_mark(tokenizer) if form == "decoder" else None
    context = [] if unmarked is None else list(prompt[-CONTEXT:])
    if unmarked is not None and unmarked.behind_special:
        special = set(tokenizer.added_tokens_encoder.values())
        context = list(itertools.takewhile(lambda token: token not in special, reversed(context)))[::-1]
    before, both = _text(tokenizer, context), _text(tokenizer, [*context, *ids])
    return both[len(before):] if both.startswith(before) else _text(tokenizer, ids)  # a character has tokens of both


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _first(ids: Sequence[int], special: set[int]) -> int:
    """Where the first special token stands; their number where there is none."""
    return next((place for place, token in enumerate(ids) if token in special), len(ids))


@functools.lru_cache(maxsize=1)
def without_mark(tokenizer: Any) -> Unmarked | None:
    """The tokenizer without what puts the mark: the normalizer Prepend, the pre-tokenizers Metaspace and ByteLevel of the
    library tokenizers. None for a tokenizer that puts none, or one before every word (T5), whose segments have the marks of
    the whole text already."""
    if not tokenizer.is_fast:
        return None  # `tokenise` refuses it
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    behind = []
    for part in _parts(written["normalizer"], "normalizers"):
        if part["type"] == "Prepend" and part["prepend"]:
            part["prepend"] = ""
            behind.append(True)
    for part in _parts(written["pre_tokenizer"], "pretokenizers"):
        if part["type"] in WORDS_APART:
            break
        if part["type"] == "Metaspace" and part["prepend_scheme"] != "never":
            behind.append(part["prepend_scheme"] == "always")
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel" and part["add_prefix_space"]:
            behind.append(True)
            part["add_prefix_space"] = False
    if not behind:
        return None
    from tokenizers import Tokenizer

    unmarked = copy.deepcopy(tokenizer)
    unmarked._tokenizer = Tokenizer.from_str(json.dumps(written))
    return Unmarked(unmarked, any(behind))


def _parts(written: Any, several: str) -> list[dict[str, Any]]:
    """A step of tokenisation, or the steps of a sequence of them."""
    if written is None:
        return []
    return [part for one in written[several] for part in _parts(one, several)] if written["type"] == "Sequence" else [written]
