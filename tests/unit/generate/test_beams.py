"""Beam search and constraints against transformers' own, one prompt at a time, and against cases worked by hand."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from tests.unit.generate.test_decoding import NEW, Words, lively, make_prompts, sampling
from transformers import LogitsProcessor, LogitsProcessorList, NoRepeatNGramLogitsProcessor

from finetrial.errors import UserError
from finetrial.generate import Beams, Constraints, Generation, decode
from finetrial.generate import live as live_file
from finetrial.generate.beams import BeamSearch, Candidate, Move
from finetrial.models import blocks

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "t5", "t5-gated")
MORE_ENDS = list(range(20, 27))
SEARCHES = [
    ({"num_beams": 3}, {}),
    ({"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}, {}),
    ({"num_beams": 2, "length_penalty": -1.0}, {}),
    ({"num_beams": 4, "length_penalty": 0.0}, {"no_repeat_ngram_size": 2}),
    ({"num_beams": 5, "early_stopping": True}, {"no_repeat_ngram_size": 1, "min_new_tokens": 5}),
    ({"num_beams": 1}, {"no_repeat_ngram_size": 2, "min_new_tokens": 3}),
]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class OfTheAnswer(LogitsProcessor):  # type: ignore[misc]
    """The library's processor, shown the answer without the prompt."""

    def __init__(self, size: int, start: int) -> None:
        self.inner, self.start = NoRepeatNGramLogitsProcessor(size), start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self.inner(input_ids[:, self.start:], scores)


def of_transformers(model: Any, ends: list[int], prompt: Sequence[int], room: int, beams: dict[str, Any],
                    constraints: dict[str, int]) -> list[int]:
    """What `generate` answers to one prompt."""
    is_t5 = blocks.architecture_of(model).encoder_decoder
    model.config.decoder_layers = len(blocks.stacks(model)[-1])  # for transformers' cache of an uneven T5
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ends or None, 0
    ids, start = torch.tensor([prompt]), 1 if is_t5 else len(prompt)
    size = constraints.get("no_repeat_ngram_size", 0)
    least = {"min_new_tokens": constraints["min_new_tokens"]} if "min_new_tokens" in constraints else {}
    beams = beams if beams["num_beams"] > 1 else {}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=room, **beams, **least,
                            logits_processor=LogitsProcessorList([OfTheAnswer(size, start)] if size else []))
    new: list[int] = output[0, start:].tolist()
    ended = [place for place, token in enumerate(new) if token in ends]
    return new[:ended[0] + 1] if ended else new


@pytest.mark.parametrize(("beams", "constraints"), SEARCHES)
@pytest.mark.parametrize("more_ends", [[], MORE_ENDS])
def test_equals_transformers(tiny_model: Any, family: str, beams: dict[str, Any], constraints: dict[str, int],
                             more_ends: list[int]) -> None:
    (model, words), prompts, room = lively(tiny_model(family)), make_prompts(9), NEW + 4
    assert words.eos_token_id is not None
    ends = [words.eos_token_id, *more_ends]
    found = decode(model, words, prompts, max_new_tokens=room, end_tokens=more_ends, beams=Beams(**beams),
                   constraints=Constraints(**constraints))
    assert [list(answer.ids) for answer in found] == [of_transformers(model, ends, prompt, room, beams, constraints)
                                                      for prompt in prompts]
    assert [answer.finished for answer in found] == [answer.ids[-1] in ends for answer in found]


def test_searches_differ_and_end_at_different_times(tiny_model: Any, family: str) -> None:
    """What the test above compares are answers of several kinds."""
    (model, words), prompts = lively(tiny_model(family)), make_prompts(20)
    found = [decode(model, words, prompts, max_new_tokens=NEW, beams=Beams(num_beams=count, length_penalty=penalty),
                    end_tokens=MORE_ENDS)
             for count, penalty in ((1, 1.0), (4, 1.0), (4, -2.0))]
    assert found[0] != found[1] and found[1] != found[2]
    assert len({len(answer.ids) for answers in found for answer in answers}) > (1 if family == "t5" else 3)


@pytest.mark.parametrize("batch_tokens", [1, 200, 900])
def test_the_batch_does_not_matter(tiny_model: Any, family: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    how: dict[str, Any] = {"max_new_tokens": NEW, "beams": Beams(3), "constraints": Constraints(no_repeat_ngram_size=2)}
    whole = decode(model, words, prompts, **how)
    monkeypatch.setattr(live_file, "CPU_PREFILL_TOKENS", 50)
    seen: list[int] = []
    assert decode(model, words, prompts, batch_tokens=batch_tokens, on_done=seen.append, **how) == whole
    assert seen[-1] == len(prompts)
    assert decode(model, words, prompts[::-1], batch_tokens=batch_tokens, **how) == whole[::-1]


def test_one_beam_is_greedy(tiny_model: Any, family: str) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    greedy = decode(model, words, prompts, max_new_tokens=NEW)
    assert decode(model, words, prompts, max_new_tokens=NEW, beams=Beams(1)) == greedy


def test_more_beams_find_more_likely_answers(tiny_model: Any) -> None:
    """Full answers, all of one length: the sum of log-probabilities decides."""
    (model, _), prompts = lively(tiny_model("gpt2")), make_prompts(12)

    def likelihood(prompt: Sequence[int], answer: Generation) -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer.ids]])).logits[0]
        rows = logits[len(prompt) - 1:-1].log_softmax(1)
        return float(rows[torch.arange(len(answer.ids)), list(answer.ids)].sum())

    means = []
    for count in (1, 8):
        found = decode(model, Words(None), prompts, max_new_tokens=4, beams=Beams(count))
        means.append(sum(likelihood(prompt, answer) for prompt, answer in zip(prompts, found, strict=True)))
    assert means[1] > means[0]


def test_all_answers_are_searched_where_beams_are_enough(tiny_model: Any) -> None:
    """97 beams hold every first token, so that the best of all answers of two tokens is found."""
    model, prompt = tiny_model("gpt2"), [7, 8, 9]
    [found] = decode(model, Words(None), [prompt], max_new_tokens=2, beams=Beams(97))
    with torch.no_grad():
        first = model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(0)
        second = model(input_ids=torch.tensor([[*prompt, token] for token in range(97)])).logits[:, -1].log_softmax(1)
    total = first[:, None] + second
    assert found.ids == divmod(int(total.argmax()), 97)


def test_out_of_memory_halves_what_is_in_flight(tiny_model: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    expected = decode(model, words, prompts, max_new_tokens=NEW, beams=Beams(3))
    embed, seen = live_file.Live._embed, []

    def small(self: Any, tokens: Sequence[int]) -> Any:
        seen.append(len(tokens))
        if len(tokens) > 12:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return embed(self, tokens)

    monkeypatch.setattr(live_file.Live, "_embed", small)
    assert decode(model, words, prompts, max_new_tokens=NEW, beams=Beams(3)) == expected
    assert max(seen) > 12 and seen[-1] <= 12 and {count % 3 for count in seen} == {0}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_twice_in_samples_either(tiny_model: Any, size: int) -> None:
    prompts = make_prompts(6)
    found = decode(tiny_model("gpt2"), Words(None), prompts, max_new_tokens=20, sampling=sampling(temperature=0.2, top_k=5),
                   constraints=Constraints(no_repeat_ngram_size=size))
    for answer in found:
        ngrams = [answer.ids[start:start + size] for start in range(len(answer.ids) - size + 1)]
        assert len(set(ngrams)) == len(ngrams) == 21 - size


def test_the_prompt_may_be_repeated(tiny_model: Any) -> None:
    """A model that says what follows in the prompt may say it once more, and not twice."""
    (model, _), prompt = lively(tiny_model("llama")), make_prompts(1)[0]
    [first] = decode(model, Words(None), [prompt], max_new_tokens=6)
    longer = [*prompt, *first.ids, *prompt]
    free, bound = (decode(model, Words(None), [longer], max_new_tokens=6, constraints=Constraints(no_repeat_ngram_size=size))[0]
                   for size in (0, 6))
    assert bound == free  # six tokens hold one 6-gram: nothing of the prompt counts


@pytest.mark.parametrize("end", [-1, 97, 50_000])
@pytest.mark.parametrize("beams", [None, Beams(2)])
def test_an_end_that_the_model_cannot_say_forbids_nothing(tiny_model: Any, end: int, beams: Beams | None) -> None:
    """As generation_config.json may name it."""
    how: dict[str, Any] = {"max_new_tokens": 4, "beams": beams}
    model, prompts = tiny_model("gpt2"), make_prompts(4)
    expected = decode(model, Words(None), prompts, **how)
    assert decode(model, Words(end), prompts, constraints=Constraints(min_new_tokens=3), **how) == expected


def test_every_token_may_be_an_end(tiny_model: Any) -> None:
    found = decode(tiny_model("gpt2"), Words(None), make_prompts(3), max_new_tokens=4, end_tokens=range(97), beams=Beams(2))
    assert [(len(answer.ids), answer.finished) for answer in found] == [(1, True)] * 3


@pytest.mark.parametrize(("size", "least", "answer", "forbidden"), [
    (0, 0, [1, 1, 1], set()), (1, 0, [1, 4, 1], {1, 4}), (2, 0, [1, 4, 1], {4}), (2, 0, [1, 4], set()), (2, 0, [4, 4], {4}),
    (3, 0, [1, 2, 3, 1, 2], {3}), (3, 0, [1, 2, 3, 1, 2, 5, 1, 2], {3, 5}), (3, 0, [1, 2], set()), (0, 3, [1, 2], {8, 9}),
    (0, 3, [1, 2, 3], set()), (1, 1, [], {8, 9})])
def test_what_is_forbidden(size: int, least: int, answer: list[int], forbidden: set[int]) -> None:
    scores = torch.zeros(2, 10)
    Constraints(size, least).forbid(scores, [answer, [7] * 9 if not size else []], [8, 9])
    assert {token for token in range(10) if scores[0, token] == float("-inf")} == forbidden


def advanced(beams: Beams, room: int, *steps: list[tuple[float, int, int]]) -> BeamSearch:
    """A search whose end token is 9, after steps of candidates (score, beam, token)."""
    search = BeamSearch(beams, [9], room)
    for candidates in steps:
        assert not search.is_over
        search.advance([Candidate(*candidate) for candidate in candidates])
    return search


def test_a_search_worked_by_hand() -> None:
    first = [(-1.0, 0, 4), (-1.2, 0, 9), (-1.5, 0, 5), (-2.0, 0, 6)]
    search = advanced(Beams(2), 5, first)
    assert (search.ids, search.scores, [row.score for row in search.ended]) == ([[4], [5]], [-1.0, -1.5], [-1.2])
    # the third candidate ends, but ranks behind the two best: it is no answer
    second = [(-1.6, 1, 6), (-1.8, 0, 7), (-1.9, 0, 9), (-2.4, 1, 7)]
    search = advanced(Beams(2), 5, first, second)
    assert (search.ids, len(search.ended), search.is_over) == ([[5, 6], [4, 7]], 1, False)
    assert search.moves == [Move(0, 1, 1), Move(1, 0, 1)]  # what they differ in is their first token
    # now it ends first: -2.1 over 3 tokens is better than -1.2 over one
    third = [(-2.1, 0, 9), (-2.2, 1, 4), (-2.3, 1, 5), (-3.0, 0, 5)]
    search = advanced(Beams(2), 5, first, second, third)
    assert [row.ids for row in search.ended] == [(5, 6, 9), (9,)] and search.best.score == pytest.approx(-0.7)
    assert not search.is_over  # -2.2 over 3 tokens may still beat -1.2
    assert advanced(Beams(2, early_stopping=True), 5, first, second, third).is_over
    full = advanced(Beams(2), 3, first, second, third)
    assert full.is_over and [row.finished for row in full.ended] == [True, False]  # full answers count as well


def test_refusals(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    with pytest.raises(UserError, match="num_beams is 0"):
        Beams(0)
    for penalty in (11.0, -2000.0, float("nan")):
        with pytest.raises(UserError, match="length_penalty is .*; expected -10 to 10"):
            Beams(2, penalty)
    for option, value in product(("no_repeat_ngram_size", "min_new_tokens"), (-1,)):
        with pytest.raises(UserError, match=f"{option} is -1"):
            Constraints(**{option: value})
    with pytest.raises(UserError, match="sampled, and searched for with 2 beams"):
        decode(model, Words(), [[7]], max_new_tokens=3, sampling=sampling(), beams=Beams(2))
    with pytest.raises(UserError, match="min_new_tokens is 4, and max_new_tokens 3"):
        decode(model, Words(), [[7]], max_new_tokens=3, constraints=Constraints(min_new_tokens=4))
