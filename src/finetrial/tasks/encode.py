"""From segments of text to token ids with a loss mask.

Segments are tokenised apart and concatenated, so that the prompt's tokens never depend on the reply. Rules:

- Too long: `cuttable` text loses tokens at its right end (the last cuttable segment first); instruction, cue and
  target never do. A row that still does not fit is dropped and counted.
- A row whose first segment is a target is plain text. Its first token has no context and is not scored, unless the
  tokenizer itself opens every text with a token (Llama's `<s>`), which then is the context. Plain text may be cuttable
  too: then what is cut off is lost target, and counted.
- The target of a prompt -> reply row ends with the end-of-text token, which is scored; plain text gets none.
- For an encoder-decoder the prompt is the encoder's input and the target the decoder's (`tasks/assemble.py`).
- Text never makes special tokens: a document that spells `<|endoftext|>` is encoded letter by letter. The markup of a
  chat template does (`tasks/chat.py`).

`num_bytes` counts the UTF-8 bytes of exactly the text whose tokens are scored (the end token has none), which is what
bits per byte divide by.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetrial.errors import DataError
from finetrial.tasks.assemble import Encoded, Form, Piece, layout_for, surrounding_ids, tokenise
from finetrial.tasks.base import Example, Segment, Task
from finetrial.tasks.encoded import TokenDataset
from finetrial.tasks.flaws import NO_FLAWS, DataFlaws
from finetrial.tasks.space_mark import goes_on, joined_pieces

__all__ = ["Encoded", "EncodingReport", "Form", "TokenDataset", "encode_examples", "encode_prompts", "encode_segments",
           "preview", "surrounding_ids"]

_BATCH_ROWS = 256


@dataclass(frozen=True)
class EncodingReport:
    """What encoding did to the rows of one split. `num_target_tokens` and `num_target_bytes` are of the kept rows."""

    num_rows: int = 0
    num_cut: int = 0
    num_dropped: int = 0
    num_dropped_prompts: int = 0  # of them those that would fit if no room were kept for what is generated
    num_tokens: int = 0
    num_target_tokens: int = 0
    num_target_bytes: int = 0
    num_cut_tokens: int = 0
    num_lost_target_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def encode_segments(segments: Sequence[Segment], tokenizer: Any, max_tokens: int, *, form: Form = "decoder") -> Encoded:
    """One row of at most `max_tokens` tokens. Raises DataError if a reply needs an end token the tokenizer lacks."""
    return layout_for(tokenizer, form, max_tokens).row(segments, _pieces([segments], tokenizer, form)[0])


def encode_examples(task: Task, examples: Iterable[Example], tokenizer: Any, max_tokens: int, *,
                    limit: int | None = None, form: Form = "decoder", max_new_tokens: int | None = None,
                    flaws: DataFlaws = NO_FLAWS) -> tuple[TokenDataset, EncodingReport]:
    """Rows encoded in the order given, the first `limit` that fit; rows that don't fit are dropped and counted.

    With `max_new_tokens`, so are rows whose instruction and cue leave no room for as many generated tokens.
    """
    examples = list(examples)
    layout = layout_for(tokenizer, form, max_tokens, _prompt_tokens(form, max_tokens, max_new_tokens), flaws)
    roomy = layout_for(tokenizer, form, max_tokens, max_tokens, flaws)
    kept: list[tuple[Example, Encoded]] = []
    num_dropped = num_prompts = num_lost = 0
    for start in range(0, len(examples), _BATCH_ROWS):
        if limit is not None and len(kept) >= limit:
            break
        for example, segments, pieces in _tokenised(task, examples[start:start + _BATCH_ROWS], tokenizer, form):
            if limit is not None and len(kept) >= limit:
                break
            encoded = layout.row(segments, pieces)
            num_lost += encoded.num_lost_target_tokens
            if encoded.ids:
                kept.append((example, encoded))
            else:
                num_dropped += 1
                num_prompts += bool(roomy.row(segments, pieces).ids)
    return _dataset(kept, form), replace(_report([encoded for _, encoded in kept], num_dropped, num_lost), num_dropped_prompts=num_prompts)


def encode_prompts(task: Task, examples: Sequence[Example], tokenizer: Any, max_tokens: int, *, max_new_tokens: int,
                   form: Form = "decoder") -> tuple[TokenDataset, EncodingReport]:
    """What a model generates from, for rows that `encode_examples` kept: everything before the target.

    A decoder's prompt leaves room for `max_new_tokens`, so it may be cut where its row was not; an encoder's input is
    what it is in the row.
    """
    most = _prompt_tokens(form, max_tokens, max_new_tokens)
    layout = layout_for(tokenizer, form, max_tokens, most)
    rows = []
    for start in range(0, len(examples), _BATCH_ROWS):
        for example, segments, pieces in _tokenised(task, examples[start:start + _BATCH_ROWS], tokenizer, form):
            ids, num_cut = layout.prompt(segments, pieces, most)
            rows.append((example, Encoded(ids, [False] * len(ids), num_cut, 0, 0)))
    return _dataset(rows, "decoder"), _report([encoded for _, encoded in rows], 0, 0)


def preview(task: Task, examples: Iterable[Example], tokenizer: Any, max_tokens: int, n: int = 3, *,
            form: Form = "decoder", flaws: DataFlaws = NO_FLAWS) -> list[list[tuple[str, bool]]]:
    """For the first `n` rows that fit: the text of each token, and whether it is scored. A source comes first."""
    dataset, _ = encode_examples(task, examples, tokenizer, max_tokens, limit=n, form=form, flaws=flaws)
    return [[(_token_text(token, tokenizer), False) for token in dataset.source(row)]
            + [(_token_text(token, tokenizer), bool(scored))
               for token, scored in zip(dataset.ids[start:end].tolist(), dataset.loss_mask[start:end], strict=True)]
            for row, (start, end) in enumerate(zip(dataset.offsets, dataset.offsets[1:], strict=False))]


def _prompt_tokens(form: Form, max_tokens: int, max_new_tokens: int | None) -> int:
    """The most tokens of a prompt: a decoder's shares the row with what is generated."""
    if form == "encoder-decoder" or max_new_tokens is None:
        return max_tokens
    if max_new_tokens >= max_tokens:
        raise DataError(f"max_new_tokens is {max_new_tokens}, which leaves no room for a prompt in {max_tokens} tokens",
                        "lower the task's max_new_tokens, or raise its max_tokens (by default the sequence_length)")
    return max_tokens - max_new_tokens


def _tokenised(task: Task, examples: Sequence[Example], tokenizer: Any, form: Form,
               ) -> Iterable[tuple[Example, tuple[Segment, ...], list[Piece]]]:
    """Each example with its segments and their tokens; a text that occurs twice is tokenised once."""
    rendered = [task.render(example) for example in examples]
    for example, pieces, segments in zip(examples, _pieces(rendered, tokenizer, form), rendered, strict=True):
        yield example, segments, pieces


def _pieces(rows: Sequence[Sequence[Segment]], tokenizer: Any, form: Form) -> list[list[Piece]]:
    """The tokens of every segment of every row."""
    wanted = [[(one.text, one.markup, joined) for one, joined in
               zip(segments, goes_on(segments, tokenizer, form), strict=True)] for segments in rows]
    piece_of: dict[tuple[str, bool, bool], Piece] = {}
    for markup, joined in itertools.product((False, True), repeat=2):
        names = list(dict.fromkeys(one for row in wanted for one in row if one[1:] == (markup, joined)))
        if names:
            found = (joined_pieces if joined else tokenise)([text for text, *_ in names], tokenizer, markup=markup)
            piece_of |= dict(zip(names, found, strict=True))
    return [[piece_of[one] for one in row] for row in wanted]


def _token_text(token: int, tokenizer: Any) -> str:
    """A token as a person reads it; SentencePiece's mark for a space is shown as one, which decoding would strip."""
    text: str = tokenizer.decode([token])
    marked = tokenizer.convert_ids_to_tokens(token).startswith("\u2581")
    return " " + text.lstrip(" ") if marked else text


def _dataset(rows: Sequence[tuple[Example, Encoded]], form: Form) -> TokenDataset:
    ids, offsets = _flat([encoded.ids for _, encoded in rows])
    sources = _flat([encoded.source or [] for _, encoded in rows]) if form == "encoder-decoder" else (None, None)
    return TokenDataset(
        ids=ids, loss_mask=np.asarray([scored for _, encoded in rows for scored in encoded.loss_mask], dtype=np.bool_),
        offsets=offsets, num_bytes=np.asarray([encoded.target_bytes for _, encoded in rows], dtype=np.int64),
        items=[example.id for example, _ in rows], clusters=[example.cluster for example, _ in rows],
        source_ids=sources[0], source_offsets=sources[1])


def _flat(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows one after the other, and where each begins."""
    return (np.asarray([token for row in rows for token in row], dtype=np.int32),
            np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64))


def _report(rows: Sequence[Encoded], num_dropped: int, num_lost: int) -> EncodingReport:
    return EncodingReport(
        num_rows=len(rows), num_cut=sum(row.num_cut_tokens > 0 for row in rows), num_dropped=num_dropped,
        num_tokens=sum(len(row.ids) + len(row.source or ()) for row in rows),
        num_target_tokens=sum(sum(row.loss_mask) for row in rows),
        num_target_bytes=sum(row.target_bytes for row in rows),
        num_cut_tokens=sum(row.num_cut_tokens for row in rows), num_lost_target_tokens=num_lost)
