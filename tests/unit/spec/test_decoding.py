"""How a task's outputs are made, as a study says it: what is refused, what is in a key, what is told."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from finetrial.errors import SpecError
from finetrial.plan import specs
from finetrial.plan.build import build
from finetrial.plan.check import check_tasks
from finetrial.plan.show import render, summarise
from finetrial.spec import Decoding, Sampling, Study, TaskUse
from finetrial.spec.io import parse_study
from finetrial.stages.generate import _sampling, _search


def use(kind: str = "pydoc-summary", **options: Any) -> TaskUse:
    return TaskUse(name="new", task=kind, **options)  # type: ignore[arg-type]


def study(one: TaskUse) -> Study:
    return parse_study({"name": "s", "question": "q?", "bases": ["tiny-gpt"], "tasks": [one.model_dump(mode="json")], "sequences": [
        {"name": "alone", "tasks": ["new"]}], "arms": [{"name": "full", "components": "full", "learning_rates": [1e-3]}],
        "training": {"budget": "2 steps"}, "seeds": 1}, "study")


@pytest.mark.parametrize(("options", "said"), [
    ({"decoding": {"length_penalty": 2.0}}, "length_penalty ranks answers of several beams, and num_beams is 1"),
    ({"decoding": {"length_penalty": 2.0, "early_stopping": True}}, "length_penalty and early_stopping rank answers"),
    ({"decoding": {"num_beams": 0}}, "num_beams"),
    ({"decoding": {"num_beams": 4, "length_penalty": float("inf")}}, "length_penalty"),
    ({"decoding": {"no_repeat_ngram": 3}}, "no_repeat_ngram"),
    ({"decoding": {"num_beams": 4}, "sampling": {}}, "sampled, and searched for with 4 beams"),
    ({"decoding": {"min_new_tokens": 97}}, "min_new_tokens of new is 97, its max_new_tokens 96"),
    ({"decoding": {}, "kind": "pydoc-chat"}, "decoding: new is scored by its losses, it generates no outputs; leave it out"),
    ({"decoding": {}, "sampling": {}, "kind": "pydoc-chat"}, "sampling and decoding: .* leave them out")])
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        use(**options)


@pytest.mark.parametrize(("options", "words"), [
    ({}, "greedy, at most 96 tokens"),
    ({"decoding": {"num_beams": 4, "length_penalty": 2, "early_stopping": True, "no_repeat_ngram_size": 3}, "max_new_tokens": 64},
     "4 beams (length penalty 2, early stopping), no 3-gram of tokens twice, at most 64 tokens"),
    ({"decoding": {"min_new_tokens": 5}, "sampling": {"num_samples": 2, "top_k": 9}},
     "2 sampled an item (temperature 1, top 9), at least 5 tokens, at most 96 tokens"),
    ({"kind": "pydoc-chat"}, "")])
def test_how_outputs_are_made_is_told(options: dict[str, Any], words: str) -> None:
    assert use(**options).decoded == words


def test_a_key_holds_what_was_asked_for_and_no_more() -> None:
    """A default that is written down makes no other key."""
    def spec(**options: Any) -> dict[str, Any]:
        one = use(**options)
        return specs.decoding(study(one), one, 3)

    plain = {"split": "test", "precision": "fp32", "max_new_tokens": 96}
    assert spec() == spec(decoding={"num_beams": 1, "no_repeat_ngram_size": 0}) == plain
    assert spec(decoding={"num_beams": 4, "length_penalty": 1.0}) == {**plain, "decoding": {"do_sample": False, "num_beams": 4}}
    assert spec(decoding={"no_repeat_ngram_size": 3}, sampling={"num_samples": 2, "pass_at": 2})["decoding"] == {
        "do_sample": True, "num_samples": 2, "seed": 3, "no_repeat_ngram_size": 3}


@pytest.mark.parametrize("search", [Decoding(num_beams=4, length_penalty=0.5, early_stopping=True, no_repeat_ngram_size=2),
                                    Decoding(min_new_tokens=7), Decoding()])
def test_what_a_stage_reads_is_what_was_written(search: Decoding) -> None:
    beams, constraints = _search({"do_sample": False, **search.identity()})
    assert (constraints.no_repeat_ngram_size, constraints.min_new_tokens) == (search.no_repeat_ngram_size, search.min_new_tokens)
    if search.num_beams == 1:
        assert beams is None
    else:
        assert beams is not None
        assert (beams.num_beams, beams.length_penalty, beams.early_stopping) == (4, 0.5, True)
    written = {"do_sample": True, "seed": 0, **Sampling(num_samples=3, top_p=0.5).identity(), **search.identity()}
    sampling, num_samples = _sampling(written)
    assert sampling is not None and (num_samples, sampling.top_p) == (3, 0.5)


@pytest.mark.parametrize("options", [{"decoding": {"num_beams": 4}}, {"sampling": {"num_samples": 4}}])
def test_outputs_that_no_metric_reads_are_not_searched_for(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"tasks.new: {next(iter(options))} is given, and none of its metrics .* reads outputs"):
        check_tasks(study(use(metrics=("perplexity",), **options)))
    check_tasks(study(use(metrics=("chrf",), **options)))


def test_plan_tells_how_outputs_are_made(tmp_path: Path) -> None:
    def outputs(**options: Any) -> tuple[Any, str]:
        one = study(use(**options))
        summary = summarise(one, build(one))
        screen = Console(width=200, record=True, file=io.StringIO())
        screen.print(render(summary))
        return summary.outputs, screen.export_text()

    made, shown = outputs(decoding={"num_beams": 4})
    assert made == {"new": "4 beams (length penalty 1), at most 96 tokens"} and "new: 4 beams" in shown
    assert outputs(metrics=("perplexity",))[0] == {}
