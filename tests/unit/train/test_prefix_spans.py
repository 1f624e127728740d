"""Pairs of an encoder-decoder's pretraining: prefix to suffix, and spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetrial.errors import DataError
from finetrial.methods.full import Full
from finetrial.streams import Streams
from finetrial.train.checkpoint import Checkpoints
from finetrial.train.config import Budget, Training
from finetrial.train.loop import train
from finetrial.train.prefix_spans import (
    Marks,
    Objective,
    PairBatches,
    PrefixSpanDataset,
    alike,
    corrupted,
    lost_lines,
    pieces,
    prefix_to_suffix,
)

END, BREAK, BLANK, START, SENTINELS = 0, 10, 11, 85, range(86, 97)
_TOKENS = np.arange(97)
MARKS = Marks(END, START, SENTINELS, (_TOKENS == BREAK) | (_TOKENS == BLANK), _TOKENS == BLANK)
OBJECTIVE = Objective(source_tokens=(6, 30), target_tokens=(4, 12))
CONFIG = Training(sequence_length=30, batch_sequences=4, budget=Budget(amount=6, unit="steps"), optimizer="muon")


def _text(length: int, seed: int = 0) -> Any:
    """Words 12..84, about every eighth token a line break, some of them blank lines."""
    generator = np.random.default_rng(seed)
    words = generator.integers(12, 85, length)
    kind = generator.random(length)
    words[kind < 0.12] = BREAK
    words[kind < 0.03] = BLANK
    return words.astype(np.int32)


def _dataset(lengths: tuple[int, ...] = (100, 5, 60, 200), **changes: Any) -> PrefixSpanDataset:
    parts = [np.append(_text(length, seed), END) for seed, length in enumerate(lengths)]
    return PrefixSpanDataset(np.concatenate(parts).astype(np.uint16), END, marks=MARKS, objective=OBJECTIVE, **changes)


def _find(text: Any, part: Any) -> int:
    """Where `part` stands in `text`; -1 if nowhere."""
    places = [at for at in range(len(text) - len(part) + 1) if np.array_equal(text[at:at + len(part)], part)]
    return places[0] if places else -1


def test_pieces_stay_inside_documents_and_lose_nothing() -> None:
    data = _dataset()
    found = pieces(data.ids, END, OBJECTIVE)
    assert all(END not in data.ids[first:last] for first, last in found)
    assert int((found[:, 1] - found[:, 0]).sum()) == 100 + 60 + 200  # the document of 5 is too short
    lengths = found[:, 1] - found[:, 0]
    assert lengths.max() <= OBJECTIVE.piece_tokens and lengths.min() >= OBJECTIVE.piece_tokens // 2


@settings(deadline=None)
@given(st.integers(10, 42), st.integers(0, 10_000), st.booleans())
def test_a_suffix_goes_on_where_its_prefix_stops(length: int, seed: int, ends_document: bool) -> None:
    text = _text(length, seed)
    pair = prefix_to_suffix(text, ends_document, np.random.default_rng(seed), MARKS, OBJECTIVE)
    assert pair.source[-1] == END
    complete = pair.target[-1] == END
    suffix = pair.target[:-1] if complete else pair.target
    both = np.concatenate([pair.source[:-1], suffix])
    at = _find(text, both)
    assert at >= 0 and END not in both
    assert 6 <= len(pair.source) - 1 <= 30 and 4 <= len(suffix) <= 12 + 1
    after = at + len(both)
    assert complete == ((after == len(text) and ends_document) or (after < len(text) and text[after] == BLANK))


def test_a_cut_is_at_the_start_of_a_line_if_one_is_near() -> None:
    text = _text(42)
    text[text == BREAK] = 50
    text[text == BLANK] = 50
    text[20] = BREAK
    cuts = set()
    for seed in range(200):
        pair = prefix_to_suffix(text, False, np.random.default_rng(seed), MARKS, OBJECTIVE)
        cuts.add(_find(text, pair.target))
    assert 21 in cuts and not cuts & set(range(6, 21))


@settings(deadline=None)
@given(st.integers(10, 42), st.integers(0, 10_000))
def test_spans_and_what_is_left_make_up_the_text(length: int, seed: int) -> None:
    text = _text(length, seed)
    pair = corrupted(text, np.random.default_rng(seed), MARKS, OBJECTIVE)
    assert pair.source[-1] == pair.target[-1] == END
    source, target = pair.source[:-1], pair.target[:-1]
    used = [token for token in source.tolist() if token in SENTINELS]
    assert used == [token for token in target.tolist() if token in SENTINELS] == list(SENTINELS)[:len(used)]
    spans = {int(part[0]): part[1:] for part in np.split(target, np.flatnonzero(target >= SENTINELS[0])[1:])}
    assert all(len(span) for span in spans.values())
    whole = np.concatenate([spans.get(token, [token]) for token in source.tolist()])
    assert _find(text, whole) >= 0 and source[0] not in SENTINELS
    num_noise = len(target) - len(used)
    assert num_noise == max(1, round(len(whole) * 0.15)) and len(used) == max(1, round(num_noise / 3))


@settings(deadline=None)
@given(st.integers(10, 42), st.integers(0, 10_000))
def test_text_is_restored_from_the_same_source(length: int, seed: int) -> None:
    text = _text(length, seed)
    spans = corrupted(text, np.random.default_rng(seed), MARKS, OBJECTIVE)
    whole = corrupted(text, np.random.default_rng(seed), MARKS, replace(OBJECTIVE, corrupted_target="text"))
    assert np.array_equal(whole.source, spans.source) and whole.target[-1] == END
    lost = {int(part[0]): part[1:].tolist() for part in np.split(spans.target[:-1], np.flatnonzero(
        spans.target[:-1] >= SENTINELS[0])[1:])}
    assert whole.target[:-1].tolist() == [word for token in spans.source[:-1].tolist()
                                          for word in lost.get(token, [token])]


@settings(deadline=None)
@given(st.integers(10, 42), st.integers(0, 10_000))
def test_lost_lines_are_asked_for(length: int, seed: int) -> None:
    text = _text(length, seed)
    pair = lost_lines(text, np.random.default_rng(seed), MARKS, replace(OBJECTIVE, lines_tokens=(2, 9)))
    assert pair.source[-1] == pair.target[-1] == END
    lost = pair.target[:-1]
    before, after = np.split(pair.source[:-1], np.flatnonzero(pair.source[:-1] == SENTINELS[0]))
    assert 2 <= len(lost) <= 9
    assert _find(text, np.concatenate([before, lost, after[1:]])) >= 0


def test_lost_lines_are_whole_where_a_line_ends_in_time() -> None:
    text = np.array([*range(20, 30), BREAK, *range(30, 36), BREAK, *range(40, 60)], np.int32)
    objective = replace(OBJECTIVE, source_tokens=(38, 38), lines_tokens=(3, 8))
    drawn = [lost_lines(text, np.random.default_rng(seed), MARKS, objective).target[:-1].tolist() for seed in range(50)]
    assert list(range(30, 36)) in drawn
    assert {lost[0] for lost in drawn} == {30, 40}  # a run starts where a line does


def test_each_kind_has_its_share() -> None:
    drawn = replace(_dataset(), objective=replace(OBJECTIVE, prefix_share=0.5, lines_share=0.3, lines_tokens=(2, 9)))
    pairs = [drawn.batches(CONFIG, Streams(0)).pair(number) for number in range(600)]
    corrupted_rows = sum(pair.target[0] in SENTINELS for pair in pairs)
    prefixes = sum(not np.isin(pair.source, SENTINELS).any() for pair in pairs)
    assert 260 < prefixes < 340 and 90 < corrupted_rows < 150


def test_the_first_rows_are_copied() -> None:
    objective = replace(OBJECTIVE, prefix_share=1.0, corrupted_target="text", copied_first=40, copied_tokens=(6, 9))
    drawn = replace(_dataset(), objective=objective).batches(CONFIG, Streams(0))
    plain = replace(_dataset(), objective=replace(objective, copied_first=0)).batches(CONFIG, Streams(0))
    pairs = [drawn.pair(number) for number in range(60)]
    assert [bool(np.isin(pair.source, SENTINELS).any()) for pair in pairs] == [True] * 40 + [False] * 20
    assert {len(pair.target) - 1 for pair in pairs[:40]} == {6, 7, 8, 9}
    assert all(np.array_equal(pair.source, plain.pair(number).source) for number, pair in enumerate(pairs) if number >= 40)


def test_three_quarters_are_prefixes() -> None:
    drawn = _dataset().batches(CONFIG, Streams(0))
    spans = sum(drawn.pair(number).target[0] in SENTINELS for number in range(800))
    assert 160 < spans < 240


def test_rows_follow_the_number_and_the_seed() -> None:
    drawn = _dataset().batches(CONFIG, Streams(0))
    assert isinstance(drawn, PairBatches)
    whole = drawn.step(3, None)[0]
    assert whole.source_ids is not None and whole.source_mask is not None
    parts = _dataset().batches(CONFIG, Streams(0)).step(3, 1)
    assert sorted(whole.target_ids.tolist()) == sorted(torch.cat([part.target_ids for part in parts]).tolist())
    assert whole.num_tokens == sum(part.num_tokens for part in parts)
    assert whole.input_ids[:, 0].tolist() == [START] * 4
    assert torch.equal(whole.source_ids == START, ~whole.source_mask)
    other = _dataset().batches(CONFIG, Streams(1)).step(3, None)[0]
    assert not torch.equal(whole.target_ids[:20], other.target_ids[:20])
    epoch = len(pieces(_dataset().ids, END, OBJECTIVE))
    assert sorted({drawn.piece(number) for number in range(epoch)}) == sorted(
        {drawn.piece(number) for number in range(epoch, 2 * epoch)})
    assert not np.array_equal(drawn.pair(0).source, drawn.pair(epoch).source)


def test_pairs_of_like_lengths_share_a_batch() -> None:
    drawn = _dataset((400, 300, 500)).batches(CONFIG, Streams(0))
    pairs = [drawn.pair(number) for number in range(32)]

    def places(order: Any) -> int:
        groups = [order[at:at + 4] for at in range(0, 32, 4)]
        return sum(4 * (max(len(pair.source) for pair in group) + max(len(pair.target) for pair in group))
                   for group in groups)

    ordered = alike(pairs, 4)
    assert sorted(map(id, ordered)) == sorted(map(id, pairs))
    assert places(ordered) < 0.9 * places(pairs)
    assert len(alike(pairs[:5], 4)) == 5 and len(alike(pairs[:3], 8)) == 3


def test_budgets() -> None:
    drawn = _dataset().batches(CONFIG, Streams(0))
    rows = len(pieces(_dataset().ids, END, OBJECTIVE))
    assert drawn.num_steps(Budget(amount=7, unit="steps")) == 7
    assert drawn.num_steps(Budget(amount=2, unit="epochs")) == -(-2 * rows // 4)
    assert drawn.epoch(rows) == 4
    steps = drawn.num_steps(Budget(amount=1000, unit="tokens"))
    tokens = np.cumsum([sum(part.num_tokens for part in drawn.step(step, 2)) for step in range(steps)])
    assert tokens[-1] >= 1000 > tokens[-2]


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="none of the documents in 18 tokens is long enough for a source of 6 tokens"):
        _dataset((8, 8)).batches(CONFIG, Streams(0))


def test_resume_is_bit_equal(tiny_model: Any, tmp_path: Path, one_thread: None) -> None:
    class Killed(Exception):
        pass

    def kill(metrics: Mapping[str, Any]) -> None:
        if metrics["step"] == 4:
            raise Killed

    def run(checkpoints: Checkpoints | None = None, on_metrics: Any = None) -> Any:
        model = tiny_model("t5")
        component = Full().attach(model, Streams(0), "base")
        result = train(model, [component], _dataset(), CONFIG, 1e-3, Streams(0), micro_batch=2,
                       checkpoints=checkpoints, on_metrics=on_metrics)
        return result.tokens, result.final_loss, component.trainable_digest()

    where = Checkpoints(tmp_path, every_seconds=0)
    with pytest.raises(Killed):
        run(where, kill)
    assert run(where) == run()
