"""The built-in studies as they were published: they plan, with the threats that they name, and every claim is read."""

from __future__ import annotations

from collections import Counter

import pytest

from finetrial import catalog
from finetrial.cli.study import Changes, find_study
from finetrial.errors import UserError
from finetrial.plan.audit import audit, audit_plan, refuse
from finetrial.plan.build import build
from finetrial.run.options import RunOptions, run_folder
from finetrial.spec import Study
from finetrial.spec.io import parse_study
from finetrial.spec.study import BASE_ARM

STUDIES = catalog.names("study")
IN_ROWS = {"perplexity": {"held-out-rows-in-training", "padding-trained-on"}, "rank-low-data": {"truncated-cues"},
           "lora-vs-layer": {"target-in-input"}}  # seen in the encoded data: tests/validate/built_in_data.py
MOST_TRAININGS = 60  # of 20 thousand tokens each


def as_published(name: str) -> Study:
    return catalog.find("study", name)().as_published()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_data_with_a_folder_of_its_own(name: str) -> None:
    study = as_published(name)
    assert parse_study(study.identity(), name) == study
    assert study.name == f"{name}-as-published" and study.claims and not study.hypotheses
    assert run_folder(study, RunOptions().runs) != run_folder(catalog.find("study", name)().study(), RunOptions().runs)


@pytest.mark.parametrize("name", STUDIES)
def test_it_plans_with_the_threats_that_it_accepts(name: str) -> None:
    study = as_published(name)
    plan = build(study)
    found = [*audit(study), *audit_plan(study, plan)]
    refuse(found)
    threats = {row.rule for row in found if row.severity == "threat"}
    assert threats | IN_ROWS.get(name, set()) == set(study.accept_threats)
    assert Counter(stage.kind for stage in plan.stages)["train"] <= MOST_TRAININGS


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_refused_unless_its_threats_are_accepted(name: str) -> None:
    study = as_published(name).model_copy(update={"accept_threats": ()})
    with pytest.raises(UserError, match="--accept-threat"):
        refuse(audit(study))


@pytest.mark.parametrize("name", STUDIES)
def test_what_a_claim_reads_is_scored(name: str) -> None:
    """Each side of a contrast names an arm along its sequence, and a task that is scored there."""
    study = as_published(name)
    along = {path.name: path for path in study.paths}
    for claim in study.claims:
        for contrast in claim.contrasts:
            for side in contrast.sides:
                path = along[side.sequence]
                assert side.arm == BASE_ARM or study.arm(side.arm) in study.arms_along(path), claim.name
                assert contrast.task in {use.name for use in study.evaluated_along(path)}, claim.name
        if claim.mended is not None:
            assert claim.flaw


@pytest.mark.parametrize("name", STUDIES)
def test_a_mended_claim_is_read_where_no_flaw_is(name: str) -> None:
    """The last row of a claim that has several is without any flaw of data, untuned arm or sampled output."""
    study = as_published(name)
    whole = [claim.mended for claim in study.claims if claim.flaw == "all of them"]
    for contrast in whole:
        assert contrast is not None
        use = study.task(contrast.task)
        assert use.flaws == type(use.flaws)() and use.sampling is None and use.num_test == 150
        assert all(side.arm == BASE_ARM or len(study.arm(side.arm).learning_rates) > 1 for side in contrast.sides)


def test_plasticity_stability_alone_is_refused_for_its_one_path() -> None:
    study = as_published("plasticity-stability")
    alone = study.model_copy(update={"arms": study.arms[:1], "sequences": study.sequences[1:], "claims": ()})
    assert "method-tied-to-position" in {row.rule for row in audit(alone)}


def test_the_option_of_the_command_line() -> None:
    assert find_study("perplexity", Changes(as_published=True)).study == as_published("perplexity")
    arms = "full-published,r8-published,full,lora-r8"
    changed = find_study("perplexity", Changes(as_published=True, arms=arms)).study
    assert [claim.name for claim in changed.claims] == ["full-beats-r8.1", "full-beats-r8.5", "parameters", "memory"]
    for changes, message in ((Changes(size="demo", as_published=True), "--size demo does not go with --as-published"),
                             (Changes(scale="full", as_published=True), "not at full")):
        with pytest.raises(UserError, match=message):
            find_study("perplexity", changes)
    with pytest.raises(UserError, match="does not go with the study file"):
        find_study("mine.yaml", Changes(as_published=True))
