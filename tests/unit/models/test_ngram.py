"""The n-gram model against a reference in plain dictionaries, written from the formulas and sharing no code with it."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from finetrial.models.bundled import ngram


class Reference:
    """Interpolated modified Kneser-Ney over a ring of tokens, one dictionary for each order, exact fractions."""

    def __init__(self, tokens: list[int], size: int, order: int) -> None:
        self.size, self.order = size, order
        ring = [tuple(tokens[(start + k) % len(tokens)] for k in range(order + 1)) for start in range(len(tokens))]
        self.counts: dict[int, Counter[tuple[int, ...]]] = {order: Counter(run[:order] for run in ring)}
        for n in range(1, order):
            self.counts[n] = Counter(gram[1:] for gram in {run[:n + 1] for run in ring})
        self.discount = {n: self._discounts(n) for n in self.counts}

    def _discounts(self, n: int) -> list[Fraction]:
        fallback = [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2)]
        number = [sum(1 for count in self.counts[n].values() if count == k) for k in range(5)]
        if min(number[1:]) == 0:
            return fallback
        share = Fraction(number[1], number[1] + 2 * number[2])
        estimated = [k - (k + 1) * share * Fraction(number[k + 1], number[k]) for k in (1, 2, 3)]
        return [Fraction(0), *estimated] if all(0 <= d <= k for k, d in enumerate(estimated, start=1)) else fallback

    def p(self, word: int, context: tuple[int, ...]) -> Fraction:
        n = len(context) + 1
        table = {gram[-1]: count for gram, count in self.counts[n].items() if gram[:-1] == context}
        shorter = self.p(word, context[1:]) if context else Fraction(1, self.size)
        if not table:
            return shorter
        total = sum(table.values())
        removed = {w: self.discount[n][min(count, 3)] for w, count in table.items()}
        own = Fraction(table[word]) - removed[word] if word in table else Fraction(0)
        return own / total + sum(removed.values(), Fraction(0)) / total * shorter


def _text(length: int, size: int, seed: int) -> list[int]:
    generator = np.random.default_rng(seed)
    steps = generator.geometric(0.5, size=length)
    return (np.cumsum(steps) % size).tolist()


@pytest.mark.parametrize(("order", "size", "seed"), [(2, 5, 0), (3, 7, 1), (5, 6, 2), (5, 12, 3)])
def test_equals_reference(order: int, size: int, seed: int) -> None:
    tokens = _text(150, size, seed)
    model = ngram.train(np.asarray(tokens), vocabulary_size=size + 1, order=order)  # one word is never seen
    reference = Reference(tokens, size + 1, order)
    held_out = [*_text(60, size, seed + 100), size, 0, 1]
    expected = [float(reference.p(word, tuple(held_out[max(0, place - order + 1):place])))
                for place, word in enumerate(held_out)]
    np.testing.assert_allclose(ngram.probabilities(model, np.asarray(held_out)), expected, rtol=1e-6)


def test_hand_worked_bigram() -> None:
    # Ring 0 1 0 2: bigrams 01, 10, 02, 20, once each. Left neighbours: 0 has two, 1 and 2 have one. Counts of counts
    # are too few, so D = 0.5, 1, 1.5. Unigram of 1: (1 - 0.5 + (1 + 0.5 + 0.5) / 3) / 4 = 7/24.
    # p(1 | 0) = (1 - 0.5) / 2 + (0.5 + 0.5) / 2 * 7/24 = 19/48.
    model = ngram.train(np.asarray([0, 1, 0, 2]), order=2)
    np.testing.assert_allclose(model.unigram, [10 / 24, 7 / 24, 7 / 24])
    np.testing.assert_allclose(ngram.probabilities(model, np.asarray([0, 1])), [10 / 24, 19 / 48], rtol=1e-6)


def test_discounts_by_hand() -> None:
    # 8 ones, 4 twos, 2 threes, 1 four: Y = 8 / 16; D1 = 1 - 2 Y 4/8, D2 = 2 - 3 Y 2/4, D3 = 3 - 4 Y 1/2
    counts = np.asarray([1] * 8 + [2] * 4 + [3] * 2 + [4])
    np.testing.assert_allclose(ngram.discounts(counts), [0, 0.5, 1.25, 2.0])


@pytest.mark.parametrize("context", [[], [3], [1, 2], [0, 1, 2, 3], [9, 9, 9, 9], [4, 4, 0, 1]])
def test_probabilities_sum_to_one(context: list[int]) -> None:
    model = ngram.train(np.asarray(_text(3_000, 10, 5)), vocabulary_size=10)
    total = sum(ngram.probabilities(model, np.asarray([*context, word]))[-1] for word in range(10))
    assert total == pytest.approx(1.0, abs=1e-6)


def test_higher_order_helps_on_structured_text() -> None:
    tokens, held_out = _text(20_000, 10, 6), _text(2_000, 10, 7)
    pair = np.tile([0, 1, 2, 0, 3, 4], 500)
    assert ngram.bits(ngram.train(pair), pair).mean() < 0.1 * ngram.bits(ngram.train(pair, order=2), pair).mean()
    assert ngram.bits(ngram.train(np.asarray(tokens)), np.asarray(held_out)).mean() < np.log2(10)


@pytest.mark.parametrize("ids", [[1, 2], [0, -1, 3, 4, 5, 6]])
def test_refuses_unusable_training_text(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="at least 5 token ids"):
        ngram.train(np.asarray(ids))


def test_refuses_ids_outside_the_vocabulary() -> None:
    model = ngram.train(np.arange(10))
    with pytest.raises(ValueError, match=r"0\.\.9"):
        ngram.bits(model, np.asarray([10]))
    with pytest.raises(ValueError, match="outside the vocabulary"):
        ngram.train(np.arange(10), vocabulary_size=5)
