"""One row: from the tokens of its segments to what a model reads and what it must predict.

`Layout` holds what a kind of model asks for. A decoder reads prompt and target as one sequence. An encoder-decoder
reads the prompt with its encoder, and predicts the target with its decoder; both sides carry the marks that the
tokenizer itself puts around a text (`</s>` for T5, `<s>` and `</s>` for CodeT5), as in their pretraining. Plain text
has no prompt: an encoder-decoder reads its first half and predicts its second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from finetrial.errors import DataError
from finetrial.tasks.base import Segment
from finetrial.tasks.flaws import NO_FLAWS, DataFlaws

Form = Literal["decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Piece:
    """A tokenised text: `ends[t]` is its UTF-8 length up to the end of token t, `num_bytes` that of the whole."""

    ids: list[int]
    ends: list[int]
    num_bytes: int


@dataclass(frozen=True)
class Encoded:
    """One row. `ids` and `loss_mask` are empty if it does not fit; then all its target tokens count as lost.

    For an encoder-decoder `source` is the encoder's input and `ids` are the labels, each of them scored.
    """

    ids: list[int]
    loss_mask: list[bool]
    num_cut_tokens: int
    num_lost_target_tokens: int
    target_bytes: int
    source: list[int] | None = None


@dataclass(frozen=True)
class Layout:
    """How rows are laid out: the form of the model, its tokenizer's marks, and the limits in tokens.

    `opening` and `closing` stand around every text of this tokenizer, `end_token` behind every reply that no chat template closes. A row has at most
    `max_tokens` tokens (on either side, for an encoder-decoder), and the uncut rest of its prompt at most `max_prompt`.
    """

    form: Form
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    end_token: int | None
    max_tokens: int
    max_prompt: int
    scores_prompt: bool = False  # a flaw (`tasks/flaws.py`): prompts are targets too
    fills_rows: bool = False  # a flaw: rows end in end tokens up to `max_tokens`, all of them targets

    def row(self, segments: Sequence[Segment], pieces: Sequence[Piece]) -> Encoded:
        """One row. Raises DataError if a reply needs an end token that the tokenizer lacks."""
        build = _pair if self.form == "encoder-decoder" else _sequence
        encoded = build(self, segments, pieces)
        if encoded.ids and not segments[0].loss and self._fixed(segments, pieces) > self.max_prompt:
            return _none(segments, pieces, encoded.num_cut_tokens)
        return self._filled(encoded) if self.fills_rows and encoded.ids else encoded

    def prompt(self, segments: Sequence[Segment], pieces: Sequence[Piece], max_tokens: int) -> tuple[list[int], int]:
        """What a model generates from: everything before the target, and how many of its tokens were cut."""
        count = sum(not segment.loss for segment in segments)
        around = self._marks()
        keep, excess, num_cut = cut(segments[:count], pieces[:count], max_tokens - sum(map(len, around)))
        assert excess <= 0, "a row whose prompt does not fit is not encoded"
        return [*around[0], *_kept(pieces[:count], keep), *around[1]], num_cut

    def end(self) -> list[int]:
        """The end token. Raises DataError if there is none."""
        if self.end_token is None:
            raise DataError("this tokenizer has no end-of-text token, which a reply must end with",
                            "set eos_token in its tokenizer_config.json")
        return [self.end_token]

    def _filled(self, encoded: Encoded) -> Encoded:
        missing = self.max_tokens - len(encoded.ids)
        return replace(encoded, ids=encoded.ids + self.end() * missing, loss_mask=encoded.loss_mask + [True] * missing)

    def _marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stands around a prompt: an encoder's input is closed, a decoder's is to be gone on with."""
        return self.opening, self.closing if self.form == "encoder-decoder" else ()

    def _fixed(self, segments: Sequence[Segment], pieces: Sequence[Piece]) -> int:
        """The tokens of the prompt that are never cut."""
        return sum(map(len, self._marks())) + sum(
            len(piece.ids) for segment, piece in zip(segments, pieces, strict=True)
            if not segment.loss and not segment.cuttable and not segment.exchange)


def layout_for(tokenizer: Any, form: Form, max_tokens: int, max_prompt: int | None = None,
               flaws: DataFlaws = NO_FLAWS) -> Layout:
    """The layout for a tokenizer; without `max_prompt` a prompt may fill a row.

    Raises DataError where prompts are to be scored that an encoder reads.
    """
    if flaws.prompt_scored and form == "encoder-decoder":
        raise DataError("an encoder-decoder scores what its decoder writes; its prompt cannot be scored (prompt_scored)",
                        "take a decoder-only base to repeat this flaw")
    opening, closing = surrounding_ids(tokenizer)
    return Layout(form, tuple(opening), tuple(closing), tokenizer.eos_token_id, max_tokens,
                  max_tokens if max_prompt is None else max_prompt, flaws.prompt_scored, flaws.padding_scored)


def surrounding_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer itself puts before and behind every text: nothing for GPT-2, `<s>` before for Llama, `</s>`
    behind for T5, both for CodeT5."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start:start + len(bare)] == bare:
            return list(full[:start]), list(full[start + len(bare):])
    return [], []


def tokenise(texts: Sequence[str], tokenizer: Any, *, markup: bool = False) -> list[Piece]:
    """Each text alone, without marks; only `markup` makes special tokens. Raises DataError for a tokenizer that does not know where its tokens lie."""
    if not texts:
        return []
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} cannot tell where its tokens lie in the text",
                        "use a base whose folder has a tokenizer.json")
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=not markup, verbose=False,
                        return_offsets_mapping=True)
    return [Piece(list(ids), _byte_ends(text, offsets), len(text.encode("utf-8"))) for text, ids, offsets in
            zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)]


def cut(segments: Sequence[Segment], pieces: Sequence[Piece], space: int) -> tuple[list[int], int, int]:
    """How many tokens of each segment are kept so that all fit into `space`; how many are still too many; how many were
    cut. Earlier exchanges of a conversation go first, the oldest first; then cuttable text loses tokens at its right end, the
    last cuttable segment first."""
    keep = [len(piece.ids) for piece in pieces]
    excess = sum(keep) - space
    before = sum(keep)
    for exchange in sorted({segment.exchange for segment in segments} - {0}):
        if excess > 0:
            of_it = [index for index, segment in enumerate(segments) if segment.exchange == exchange]
            excess -= sum(keep[index] for index in of_it)
            keep = [0 if index in of_it else count for index, count in enumerate(keep)]
    for index in reversed(range(len(segments))):
        if excess > 0 and segments[index].cuttable:
            taken = min(excess, keep[index])
            keep[index] -= taken
            excess -= taken
    return keep, excess, before - sum(keep)


def _sequence(layout: Layout, segments: Sequence[Segment], pieces: Sequence[Piece]) -> Encoded:
    """Prompt and target, or plain text, as one sequence."""
    opening, closing = list(layout.opening), [] if segments[0].loss or _is_closed(segments) else layout.end()
    keep, excess, num_cut = cut(segments, pieces, layout.max_tokens - len(opening) - len(closing))
    ids, mask, num_bytes = opening, [False] * len(opening), 0
    for segment, piece, count in zip(segments, pieces, keep, strict=True):
        is_scored = segment.loss or layout.scores_prompt
        unscored = 1 if is_scored and not ids and count else 0  # no context: the very first token of the row
        ids = ids + piece.ids[:count]
        mask += [False] * unscored + [is_scored] * (count - unscored)
        if is_scored and not (segment.loss and segment.markup):  # a mark that ends a reply has no bytes
            num_bytes += _bytes(piece, unscored, count)
    if excess > 0 or not any(mask):
        return _none(segments, pieces, num_cut)
    return Encoded(ids + closing, mask + [True] * len(closing), num_cut, _lost(segments, pieces, keep), num_bytes)


def _pair(layout: Layout, segments: Sequence[Segment], pieces: Sequence[Piece]) -> Encoded:
    """Prompt for the encoder and target for the decoder, or the halves of a plain text."""
    opening, closing = list(layout.opening), list(layout.closing)
    marks = len(opening) + len(closing)
    if segments[0].loss:
        return _halves(layout, segments, pieces)
    ends = [] if closing and closing[-1] == layout.end_token else layout.end()
    count = sum(not segment.loss for segment in segments)
    keep, excess, num_cut = cut(segments[:count], pieces[:count], layout.max_tokens - marks)
    target = [token for piece in pieces[count:] for token in piece.ids]
    labels = [*opening, *target, *closing, *ends]
    if excess > 0 or not target or len(labels) > layout.max_tokens:
        return _none(segments, pieces, num_cut)
    source = [*opening, *_kept(pieces[:count], keep), *closing]
    return Encoded(labels, [True] * len(labels), num_cut, 0, sum(piece.num_bytes for piece in pieces[count:]), source)


def _halves(layout: Layout, segments: Sequence[Segment], pieces: Sequence[Piece]) -> Encoded:
    """Plain text, cut to a row as for a decoder: the first half of its tokens is read, the second predicted.

    It has no end: the text may go on.
    """
    opening, closing = list(layout.opening), list(layout.closing)
    keep, excess, num_cut = cut(segments, pieces, layout.max_tokens - len(opening) - len(closing))
    tokens = _kept(pieces, keep)
    middle = len(tokens) // 2
    if excess > 0 or middle == 0:
        return _none(segments, pieces, num_cut)
    num_bytes, at = 0, 0
    for piece, count in zip(pieces, keep, strict=True):
        num_bytes += _bytes(piece, min(max(middle - at, 0), count), count)
        at += count
    labels = opening + tokens[middle:]
    return Encoded(labels, [True] * len(labels), num_cut, _lost(segments, pieces, keep), num_bytes,
                   opening + tokens[:middle] + closing)


def _none(segments: Sequence[Segment], pieces: Sequence[Piece], num_cut: int) -> Encoded:
    """A row that does not fit: its target is lost, with the end token that a reply has."""
    lost = sum(len(piece.ids) for segment, piece in zip(segments, pieces, strict=True) if segment.loss)
    return Encoded([], [], num_cut, lost + (0 if segments[0].loss or _is_closed(segments) else 1), 0)


def _is_closed(segments: Sequence[Segment]) -> bool:
    """Whether the last segment is the mark by which a chat template ends a reply: it stands for the end token."""
    return segments[-1].loss and segments[-1].markup


def _lost(segments: Sequence[Segment], pieces: Sequence[Piece], keep: Sequence[int]) -> int:
    """Target tokens that were cut off."""
    return sum(len(piece.ids) - count for segment, piece, count in zip(segments, pieces, keep, strict=True)
               if segment.loss)


def _kept(pieces: Sequence[Piece], keep: Sequence[int]) -> list[int]:
    return [token for piece, count in zip(pieces, keep, strict=True) for token in piece.ids[:count]]


def _bytes(piece: Piece, first: int, end: int) -> int:
    """UTF-8 bytes of the text of tokens first..end-1."""
    if end <= first:
        return 0
    last = piece.num_bytes if end == len(piece.ids) else piece.ends[end - 1]
    return last - (piece.ends[first - 1] if first else 0)


def _byte_ends(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The byte position after each token. Tokens that share one character all end after it."""
    if text.isascii():
        return [end for _, end in offsets]
    widths = [len(character.encode("utf-8")) for character in text]
    position = np.concatenate([[0], np.cumsum(widths)])
    return [int(position[end]) for _, end in offsets]
