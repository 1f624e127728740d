"""From segments of text to token ids with a loss mask.

Segments are tokenised apart and concatenated, so that the prompt's tokens never depend on the reply. Rules:

- Too long: `cuttable` text loses tokens at its right end (the last cuttable segment first); instruction, cue and
  target never do. A row that still does not fit is dropped and counted.
- A row whose first segment is a target is plain text. Its first token has no context and is not scored, unless the
  tokenizer itself opens every text with a token (Llama's `<s>`), which then is the context. Plain text may be cuttable
  too: then what is cut off is lost target, and counted.
- The target of a prompt -> reply row ends with the end-of-text token, which is scored; plain text gets none.
- Text never makes special tokens: a document that spells `<|endoftext|>` is encoded letter by letter.

`num_bytes` counts the UTF-8 bytes of exactly the text whose tokens are scored (the end token has none), which is what
bits per byte divide by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetrial.errors import DataError
from finetrial.tasks.base import Example, Segment, Task
from finetrial.tasks.encoded import TokenDataset

__all__ = ["Encoded", "EncodingReport", "TokenDataset", "encode_examples", "encode_segments", "preview"]

_BATCH_ROWS = 256


@dataclass(frozen=True)
class Encoded:
    """One row. `ids` and `loss_mask` are empty if it does not fit; then all its target tokens count as lost."""

    ids: list[int]
    loss_mask: list[bool]
    num_cut_tokens: int
    num_lost_target_tokens: int
    target_bytes: int


@dataclass(frozen=True)
class EncodingReport:
    """What encoding did to the rows of one split. `num_target_tokens` and `num_target_bytes` are of the kept rows."""

    num_rows: int = 0
    num_cut: int = 0
    num_dropped: int = 0
    num_tokens: int = 0
    num_target_tokens: int = 0
    num_target_bytes: int = 0
    num_cut_tokens: int = 0
    num_lost_target_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Piece:
    """A tokenised text: `ends[t]` is its UTF-8 length up to the end of token t, `num_bytes` that of the whole."""

    ids: list[int]
    ends: list[int]
    num_bytes: int


def encode_segments(segments: Sequence[Segment], tokenizer: Any, max_tokens: int) -> Encoded:
    """One row of at most `max_tokens` tokens. Raises DataError if a reply needs an end token the tokenizer lacks."""
    pieces = _tokenise([segment.text for segment in segments], tokenizer)
    return _assemble(segments, pieces, opening_ids(tokenizer), tokenizer.eos_token_id, max_tokens)


def encode_examples(task: Task, examples: Iterable[Example], tokenizer: Any, max_tokens: int, *,
                    limit: int | None = None) -> tuple[TokenDataset, EncodingReport]:
    """Rows encoded in the order given, the first `limit` that fit; rows that don't fit are dropped and counted."""
    examples = list(examples)
    opening = opening_ids(tokenizer)
    kept: list[tuple[Example, Encoded]] = []
    num_dropped = num_lost = 0
    for start in range(0, len(examples), _BATCH_ROWS):
        if limit is not None and len(kept) >= limit:
            break
        batch = examples[start:start + _BATCH_ROWS]
        rendered = [task.render(example) for example in batch]
        texts = list(dict.fromkeys(segment.text for segments in rendered for segment in segments))
        piece_of = dict(zip(texts, _tokenise(texts, tokenizer), strict=True))
        for example, segments in zip(batch, rendered, strict=True):
            if limit is not None and len(kept) >= limit:
                break
            pieces = [piece_of[segment.text] for segment in segments]
            encoded = _assemble(segments, pieces, opening, tokenizer.eos_token_id, max_tokens)
            num_lost += encoded.num_lost_target_tokens
            if encoded.ids:
                kept.append((example, encoded))
            else:
                num_dropped += 1
    return _dataset(kept), _report([encoded for _, encoded in kept], num_dropped, num_lost)


def preview(task: Task, examples: Iterable[Example], tokenizer: Any, max_tokens: int,
            n: int = 3) -> list[list[tuple[str, bool]]]:
    """For the first `n` rows that fit: the text of each token, and whether it is scored."""
    dataset, _ = encode_examples(task, examples, tokenizer, max_tokens, limit=n)
    return [[(_token_text(token, tokenizer), bool(scored))
             for token, scored in zip(dataset.ids[start:end].tolist(), dataset.loss_mask[start:end], strict=True)]
            for start, end in zip(dataset.offsets, dataset.offsets[1:], strict=False)]


def _token_text(token: int, tokenizer: Any) -> str:
    """A token as a person reads it; SentencePiece's mark for a space is shown as one, which decoding would strip."""
    text: str = tokenizer.decode([token])
    marked = tokenizer.convert_ids_to_tokens(token).startswith("\u2581")
    return " " + text.lstrip(" ") if marked else text


def opening_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer itself puts before every text: `<s>` for Llama, nothing for GPT-2."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start:start + len(bare)] == bare:
            return list(full[:start])
    return []


def _tokenise(texts: Sequence[str], tokenizer: Any) -> list[_Piece]:
    if not texts:
        return []
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} cannot tell where its tokens lie in the text",
                        "use a base whose folder has a tokenizer.json")
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False,
                        return_offsets_mapping=True)
    return [_Piece(list(ids), _byte_ends(text, offsets), len(text.encode("utf-8"))) for text, ids, offsets in
            zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)]


def _byte_ends(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The byte position after each token. Tokens that share one character all end after it."""
    if text.isascii():
        return [end for _, end in offsets]
    widths = [len(character.encode("utf-8")) for character in text]
    position = np.concatenate([[0], np.cumsum(widths)])
    return [int(position[end]) for _, end in offsets]


def _assemble(segments: Sequence[Segment], pieces: Sequence[_Piece], opening: list[int], end_token: int | None,
              max_tokens: int) -> Encoded:
    is_plain = segments[0].loss
    closing: list[int] = []
    if not is_plain:
        if end_token is None:
            raise DataError("this tokenizer has no end-of-text token, which a reply must end with",
                            "set eos_token in its tokenizer_config.json")
        closing = [end_token]
    keep = [len(piece.ids) for piece in pieces]
    excess = len(opening) + sum(keep) + len(closing) - max_tokens
    num_cut = num_lost = 0
    for index in reversed(range(len(segments))):
        if excess > 0 and segments[index].cuttable:
            cut = min(excess, keep[index])
            keep[index] -= cut
            excess -= cut
            num_cut += cut
            num_lost += cut if segments[index].loss else 0
    ids, mask, num_bytes = list(opening), [False] * len(opening), 0
    for segment, piece, count in zip(segments, pieces, keep, strict=True):
        unscored = 1 if segment.loss and not ids and count else 0  # no context: the very first token of the row
        ids += piece.ids[:count]
        mask += [False] * unscored + [segment.loss] * (count - unscored)
        if segment.loss and count:
            last = piece.num_bytes if count == len(piece.ids) else piece.ends[count - 1]
            num_bytes += last - (piece.ends[0] if unscored else 0)
    if excess > 0 or not any(mask):
        lost = sum(len(piece.ids) for segment, piece in zip(segments, pieces, strict=True) if segment.loss)
        return Encoded([], [], num_cut, lost + len(closing), 0)
    return Encoded(ids + closing, mask + [True] * len(closing), num_cut, num_lost, num_bytes)


def _dataset(rows: Sequence[tuple[Example, Encoded]]) -> TokenDataset:
    lengths = [len(encoded.ids) for _, encoded in rows]
    return TokenDataset(
        ids=np.asarray([token for _, encoded in rows for token in encoded.ids], dtype=np.int32),
        loss_mask=np.asarray([scored for _, encoded in rows for scored in encoded.loss_mask], dtype=np.bool_),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        num_bytes=np.asarray([encoded.target_bytes for _, encoded in rows], dtype=np.int64),
        items=[example.id for example, _ in rows], clusters=[example.cluster for example, _ in rows])


def _report(rows: Sequence[Encoded], num_dropped: int, num_lost: int) -> EncodingReport:
    return EncodingReport(
        num_rows=len(rows), num_cut=sum(row.num_cut_tokens > 0 for row in rows), num_dropped=num_dropped,
        num_tokens=sum(len(row.ids) for row in rows), num_target_tokens=sum(sum(row.loss_mask) for row in rows),
        num_target_bytes=sum(row.target_bytes for row in rows),
        num_cut_tokens=sum(row.num_cut_tokens for row in rows), num_lost_target_tokens=num_lost)
