"""Twins of held-out rows: the inverted index against comparing every pair."""

from __future__ import annotations

import numpy as np
import pytest

from finetrial.plan.audit.overlap import COMMON_ROWS, Index, Tokens
from finetrial.tasks.sources.minhash import SHINGLE_TOKENS, THRESHOLD


def rows_of(generator: np.random.Generator, count: int, longest: int = 60) -> list[Tokens]:
    return [generator.integers(0, 200, int(generator.integers(10, longest))).astype(np.int32) for _ in range(count)]


def runs(tokens: Tokens) -> set[tuple[int, ...]]:
    return {tuple(tokens[at:at + SHINGLE_TOKENS].tolist()) for at in range(len(tokens) - SHINGLE_TOKENS + 1)}


def jaccard(one: Tokens, other: Tokens) -> float:
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_what_comparing_every_pair_finds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    training, held_out = rows_of(generator, 80), rows_of(generator, 20)
    for row in range(12):  # more and more of a training row is replaced
        copied = training[row].copy()
        copied[:row * 2] = 1_000 * (1 + row) + np.arange(len(copied[:row * 2]))
        held_out.append(copied.astype(np.int32))
    best = {row: max(jaccard(one, other) for other in training) for row, one in enumerate(held_out)}
    found = {twin.held_out: twin for twin in Index(training).twins(held_out)}
    assert set(found) == {row for row, value in best.items() if value >= THRESHOLD}
    for row, twin in found.items():
        assert twin.resemblance == pytest.approx(best[row])
        assert twin.is_exact == np.array_equal(held_out[row], training[twin.other])


def test_what_many_rows_share_tells_nothing() -> None:
    generator = np.random.default_rng(0)
    header = generator.integers(0, 200, 100).astype(np.int32)

    def headed(count: int) -> list[Tokens]:
        return [np.concatenate([header, tail[:12]]) for tail in rows_of(generator, count)]

    assert not Index(headed(50)).twins(headed(COMMON_ROWS[0] + 1))
    assert not Index(headed(50)).twins(headed(1)), "a form in the other set is one, however few rows are held out"
    few = [*headed(5), *rows_of(generator, 45)]
    assert [twin.held_out for twin in Index(few).twins(headed(1))] == [0], "what few rows share is their own"


def test_short_rows_are_compared_exactly() -> None:
    short = [np.asarray(row, np.int32) for row in ([1], [1, 2, 3], [4, 5, 6, 7, 8, 9], [])]
    other = [np.asarray(row, np.int32) for row in ([1, 2, 3], [4, 5, 6, 7, 8, 8])]
    assert [(twin.held_out, twin.other) for twin in Index(other).twins(short)] == [(1, 0)]
    assert Index([]).twins(short) == [] and Index(short).twins([]) == []


def test_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    training = rows_of(generator, 60)
    held_out = [training[at][:-3] for at in range(10)] + rows_of(generator, 10)
    whole = Index(training).twins(held_out)
    monkeypatch.setattr("finetrial.plan.audit.overlap.PART_RUNS", 7)
    assert whole and Index(training).twins(held_out) == whole


def family(generator: np.random.Generator, count: int, length: int = 40) -> list[Tokens]:
    """Copies of a row that differ in one token, the same for all."""
    row = generator.integers(0, 200, length).astype(np.int32)
    return [np.concatenate([row[:20], [1_000 + number], row[21:]]).astype(np.int32) for number in range(count)]


def behind(generator: np.random.Generator, heads: list[Tokens], count: int, own: int) -> list[Tokens]:
    """So many rows behind each head, in the order of the heads."""
    return [np.concatenate([head, generator.integers(0, 9_000, own)]).astype(np.int32) for head in heads for _ in range(count)]


def test_a_large_family_is_found() -> None:
    generator = np.random.default_rng(4)
    copies = family(generator, 150)
    training, held_out = copies[:109] + rows_of(generator, 800), copies[109:126] + rows_of(generator, 100)
    found = Index(training).twins(held_out)
    assert [twin.held_out for twin in found] == list(range(17)) and all(twin.other < 109 for twin in found)
    assert found[0].resemblance == pytest.approx(jaccard(copies[0], copies[1])) and not found[0].is_exact


def test_questions_about_one_article_are_found() -> None:
    generator = np.random.default_rng(5)
    articles = [generator.integers(0, 9_000, 100).astype(np.int32) for _ in range(9)]
    held_out = behind(generator, articles, 12, 12)
    assert len(Index(behind(generator, articles, 100, 12)).twins(held_out)) == len(held_out)


@pytest.mark.parametrize("num_forms", [1, 2, 3, 4])
def test_rows_of_one_form_are_no_twins(num_forms: int) -> None:
    generator = np.random.default_rng(6)
    forms = [generator.integers(0, 9_000, 300).astype(np.int32) for _ in range(num_forms)]
    training = behind(generator, forms, 200 // num_forms, 12)
    assert not Index(training).twins(behind(generator, forms, 60 // num_forms, 12))
    assert not Index(training + rows_of(generator, 5_000)).twins(behind(generator, forms[:1], 60, 12)), "all of a test set"
