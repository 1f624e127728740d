"""Published claims on tables with planted truths: every standing, what is read, and what a flaw is worth."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic import make_study, make_table

from finetrial.analysis.analyse import analyse
from finetrial.errors import UserError
from finetrial.records.results import Claim
from finetrial.spec import Contrast, PublishedClaim, Study
from finetrial.spec.io import parse_study

LOWER = {"left": "full", "right": "lora-r8", "task": "new", "margin": 0.05}


def claimed(case: str, *claims: dict[str, Any]) -> tuple[Claim, ...]:
    """The rows of some claims on one of the synthetic tables."""
    study, table = make_table(case)
    found = tuple(PublishedClaim(name=f"c{number}", claim="Full reaches a lower loss.", **claim)
                  for number, claim in enumerate(claims))
    return analyse(study.model_copy(update={"claims": found}), table).claims


def one(case: str, **claim: Any) -> Claim:
    (row,) = claimed(case, {"mended": LOWER, **claim})
    return row


@pytest.mark.parametrize(("case", "standing"), [
    ("supported", "survives"), ("refuted", "does not survive"), ("equivalent", "does not survive"),
    ("inconclusive", "undecided"), ("assay-failed", "undecided"), ("base-only", "not measured"),
    ("two-seeds", "not measured"), ("missing-cells", "not measured")])
def test_standing(case: str, standing: str) -> None:
    assert one(case).standing == standing


def test_the_direction_is_the_claim() -> None:
    assert one("supported", mended={**LOWER, "expect": "less"}).standing == "does not survive"


def test_what_cannot_be_read_says_why() -> None:
    row = one("supported", mended=None, untestable="the base is too small", published="13.97", flaw="guessed")
    assert (row.standing, row.note, row.mended) == ("cannot be tested at this scale", "the base is too small", None)
    assert (row.published, row.flaw) == ("13.97", "guessed")


def test_as_published_is_one_seed_without_interval_and_mended_all_with_one() -> None:
    row = one("supported", as_published={**LOWER, "metric": "perplexity"}, mended={**LOWER, "metric": "perplexity"})
    assert row.as_published is not None and row.mended is not None
    assert (row.as_published.n_seeds, row.as_published.low) == (1, None)
    assert row.mended.n_seeds == 5 and row.mended.low is not None and row.mended.high is not None
    assert row.mended.low < row.mended.value < row.mended.high
    assert "full fine-tuning 2" in row.mended.note and "LoRA r=8 " in row.mended.note  # levels in the metric's own unit
    assert row.worth == pytest.approx(row.as_published.value - row.mended.value)


def test_the_seed_that_is_read_is_named() -> None:
    of_seed = [one("inconclusive", as_published=LOWER, seed=seed).as_published for seed in (0, 1)]
    assert all(quote is not None and quote.n_seeds == 1 for quote in of_seed)
    assert of_seed[0] != of_seed[1]
    every = one("inconclusive", as_published=LOWER, seed=None)
    assert every.as_published is not None and every.mended is not None
    assert every.as_published.value == pytest.approx(every.mended.value)


def test_figures_in_unlike_units_have_no_difference() -> None:
    assert one("supported", as_published={**LOWER, "metric": "perplexity"}).worth is None
    assert one("supported", as_published={**LOWER, "quantity": "forgetting", "task": "old"}).worth is None


def test_a_missing_figure_as_published_hides_no_standing() -> None:
    row = one("missing-cells", as_published=LOWER, mended={**LOWER, "right": "lora-r32"}, seed=4)
    assert row.as_published is not None and row.as_published.value is None and "LoRA r=8" in row.as_published.note
    assert row.standing == "survives" and row.worth is None


def test_costs_are_exact() -> None:
    cost = {"left": "lora-r8", "right": "full", "quantity": "cost", "cost": "params_trainable", "task": "new",
            "expect": "less"}
    row = one("supported", as_published=cost, mended=cost)
    assert row.standing == "survives" and row.worth == 0 and row.mended is not None and row.mended.unit == "parameters"


def test_a_claim_has_a_way_to_be_decided_or_a_reason() -> None:
    for claim in ({}, {"mended": Contrast(**LOWER), "untestable": "too small"}):
        with pytest.raises(ValueError, match="untestable"):
            PublishedClaim(name="c", claim="?", **claim)


def study_with(**claim: Any) -> Study:
    content = make_study().identity()
    content["claims"] = [{"name": "c", "claim": "?", "mended": LOWER, **claim}]
    return parse_study(content, "study")


def test_names_in_claims_are_checked() -> None:
    assert study_with(as_published=LOWER).claims[0].as_published == Contrast(**LOWER)
    with pytest.raises(UserError, match=r"claim c: unknown arm 'lora-r9'"):
        study_with(mended={**LOWER, "right": "lora-r9"})
    with pytest.raises(UserError, match="claim c: seed 7 is none of the study's"):
        study_with(as_published=LOWER, seed=7)
