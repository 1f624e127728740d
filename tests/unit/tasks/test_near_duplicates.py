"""Families of near-duplicates are found whatever their size; texts that share a form only stay apart."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Sequence

import pytest

from finetrial.tasks.near_duplicates import FORM_SHARE, near_duplicates
from finetrial.tasks.splits import cluster_names

WORDS = ["".join(letters) for letters in itertools.product(string.ascii_lowercase[:15], repeat=3)][:3_000]


def words(draw: random.Random, count: int) -> list[str]:
    return draw.choices(WORDS, k=count)


def copies(draw: random.Random, count: int, length: int, place: int | None) -> list[str]:
    """A text with one word replaced: always the same one, or any."""
    text = words(draw, length)
    places = [draw.randrange(length) if place is None else place for _ in range(count)]
    return [" ".join([*text[:at], f"x{WORDS[number]}", *text[at + 1:]]) for number, at in enumerate(places)]


def about(draw: random.Random, num_heads: int, count: int, head: int, own: int) -> list[str]:
    """So many texts of `own` words each behind every one of some heads."""
    heads = [words(draw, head) for _ in range(num_heads)]
    return [" ".join([*one, *words(draw, own)]) for one in heads for _ in range(count)]


def clusters(texts: Sequence[str]) -> list[str]:
    """The cluster of each text, as it is in a shuffled file."""
    order = random.Random(1).sample(range(len(texts)), len(texts))
    pairs = near_duplicates([texts[at] for at in order])
    shuffled = cluster_names([f"{at:05}" for at in order], [()] * len(order), pairs)
    return [name for _, name in sorted(zip(order, shuffled, strict=True))]


@pytest.mark.parametrize("place", [20, None])
@pytest.mark.parametrize("size", [12, 90, 105, 150, 300])
def test_a_family_is_one_cluster_whatever_its_size(size: int, place: int | None) -> None:
    draw = random.Random(size)
    found = clusters(copies(draw, size, 40, place) + about(draw, 1_000, 1, 40, 0))
    assert len(set(found[:size])) == 1 and len(set(found)) == 1_001


@pytest.mark.parametrize(("num_heads", "count", "head"), [(40, 120, 100), (40, 120, 60), (9, 15, 100)])
def test_questions_about_one_article_are_one_cluster(num_heads: int, count: int, head: int) -> None:
    found = clusters(about(random.Random(2), num_heads, count, head, 13))
    assert [len(set(found[at * count:(at + 1) * count])) for at in range(num_heads)] == [1] * num_heads
    assert len(set(found)) == num_heads


@pytest.mark.parametrize(("num_heads", "count", "head", "own"), [
    (1, 500, 40, 15), (1, 500, 300, 10), (2, 250, 300, 10), (3, 200, 300, 10),  # forms, however long
    (8, 200, 40, 15), (8, 200, 60, 20)])  # as long as the fewer words of an article's questions
def test_texts_behind_one_instruction_stay_apart(num_heads: int, count: int, head: int, own: int) -> None:
    assert len(set(clusters(about(random.Random(3), num_heads, count, head, own)))) == num_heads * count


def test_a_family_behind_an_instruction_of_all_texts() -> None:
    draw = random.Random(4)
    instruction = " ".join(words(draw, 50))
    found = clusters([f"{instruction} {text}" for text in copies(draw, 150, 40, None) + about(draw, 900, 1, 40, 0)])
    assert len(set(found[:150])) == 1 and len(set(found)) == 901


def test_two_parts_of_many_texts_join_none_that_share_one_of_them() -> None:
    """Every text is an instruction, one of 8, and an article, one of 12: little of it is its own."""
    draw = random.Random(5)
    heads, articles = ([words(draw, 50) for _ in range(count)] for count in (8, 12))
    texts = [" ".join([*one, *other, *words(draw, 4)]) for one in heads for other in articles for _ in range(20)]
    assert len(set(clusters(texts))) == len(heads) * len(articles)


def test_what_stands_in_a_quarter_of_the_texts_is_a_form() -> None:
    draw = random.Random(6)
    count = int(400 * FORM_SHARE)
    found = clusters(copies(draw, count, 40, 20) + about(draw, 400 - count, 1, 40, 0))
    assert len(set(found)) == 400
    found = clusters(copies(draw, count - 1, 40, 20) + about(draw, 401 - count, 1, 40, 0))
    assert len(set(found)) == 402 - count


def test_windows_of_one_text_do_not_chain_all_texts() -> None:
    draw = random.Random(7)
    ring = words(draw, 200)
    texts = [" ".join((ring + ring)[start:start + 30]) for start in range(0, 200, 2)]
    assert len(set(clusters(texts))) == len(texts)
    assert len(set(clusters(texts + about(draw, 500, 1, 30, 0)))) == 501, "less than a quarter of the texts are a family"


def test_a_part_of_a_name_that_changes_changes_one_word() -> None:
    hook = "public void on{}Receive(ReceivePack rp) {{for (int i = 0; i < count; i++) hooks[i].on{}Receive(rp, commands);}}"
    assert near_duplicates([hook.format(one, one) for one in ("Pre", "Post")]) == [(0, 1)]


def test_texts_without_runs() -> None:
    assert near_duplicates([]) == near_duplicates(["", "one two", "one two", "\n"]) == []
