"""What the report says of twelve studies with planted truths: from the table to the text."""

from __future__ import annotations

import functools

import pytest
from synthetic import CASES, make_table

from finetrial.analysis.analyse import analyse
from finetrial.records.record import Outcome
from finetrial.records.results import AuditFinding, Claim, LookRow
from finetrial.report import View, view
from finetrial.report.html import page
from finetrial.report.markdown import markdown
from finetrial.report.sentences import MEANINGS
from finetrial.spec import Contrast, Hypothesis


@functools.cache
def shown(case: str) -> View:
    study, table = make_table(case)
    return view(study, analyse(study, table))


def card(case: str, name: str):
    return next(found for found in shown(case).cards if found.name == name)


@pytest.mark.parametrize(("case", "verdict", "start"), [
    ("supported", "SUPPORTED", "On new, full fine-tuning does 0.310 nats/token better than LoRA r=8 ("),
    ("refuted", "REFUTED", "The opposite was found: on new, LoRA r=8 does 0.290 nats/token better than full"),
    ("equivalent", "EQUIVALENT", "No difference that matters: on new, full fine-tuning does between"),
    ("inconclusive", "INCONCLUSIVE", "Not settled: on new, full fine-tuning does between"),
    ("assay-failed", "ASSAY FAILED", "No verdict: the trial did not see an effect that is known to be there"),
    ("missing-cells", "NOT MEASURED", "Not measured: 4 of 5 seeds measured"),
    ("two-seeds", "NOT MEASURED", "Not measured: "),
    ("base-only", "NOT MEASURED", "Not measured: 0 of 5 seeds measured"),
    ("nothing", "NOT MEASURED", "Not measured: 0 of 5 seeds measured"),
])
def test_the_first_card_says_the_planted_truth(case, verdict, start):
    answer = card(case, "H1").answer
    assert answer.verdict == verdict and answer.sentence.startswith(start)
    assert answer.meaning == MEANINGS[verdict]


@pytest.mark.parametrize("case", CASES)
def test_no_card_says_a_thing_twice(case):
    for found in shown(case).cards:
        for answer in (found.answer, *found.parts):
            assert not answer.caveats or answer.caveats not in answer.sentence


@pytest.mark.parametrize("case", CASES)
def test_every_decided_card_has_an_interval_and_its_support(case):
    for found in shown(case).cards:
        for answer in found.parts or (found.answer,):
            if answer.verdict in ("SUPPORTED", "REFUTED", "EQUIVALENT", "INCONCLUSIVE"):
                assert "interval" in answer.sentence or "exact" in answer.sentence
                assert "exact" in answer.sentence or "5 seeds" in answer.facts


def test_several_comparisons_are_counted_and_listed():
    found = card("refuted", "H4")
    assert found.answer.sentence == "Of 2 comparisons (all must hold): 1 supported and 1 refuted."
    assert [part.verdict for part in found.parts] == ["REFUTED", "SUPPORTED"]
    assert found.parts[1].sentence == ("In trainable parameters, full fine-tuning needs 6,605,088 more than LoRA r=32 "
                                       "(exact).")


def test_a_complete_trial_raises_no_alert_and_names_the_arm_to_choose():
    assert shown("supported").alerts == ()
    assert shown("supported").summary == "5 hypotheses: 5 supported."
    assert shown("equivalent").recommended is not None and shown("equivalent").recommended.label == "LoRA r=8"


def test_a_failed_assay_is_said_first_and_recommends_nothing():
    found = shown("assay-failed")
    assert found.alerts[0].startswith("The positive control was not seen")
    assert found.recommended is None
    assert (found.checks[0].title, found.checks[0].state) == ("Positive control: not seen", "bad")


@pytest.mark.parametrize(("case", "alert"), [
    ("missing-cells", "LoRA r=8: 3 of 15 cells are missing so far."),
    ("oom-arm", "LoRA r=32: OOM in 15 of 15 cells."),
    ("diverged-rate", "full fine-tuning: DIVERGED in 5 of 15 cells."),
    ("base-only", "full fine-tuning: 15 of 15 cells are missing so far."),
    ("nothing", "untouched base: the test score is missing so far."),
    ("nothing", "Not measured: H1, H2, H3, H4 and H5."),
])
def test_what_is_missing_or_failed_is_said_at_the_top(case, alert):
    assert alert in shown(case).alerts


def test_tested_at_the_chosen_rates_only_nothing_is_missing():
    """Validation is there at every rate, and tells what failed; the test score of one seed is then taken away."""
    study, table = make_table("supported")
    study = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"rates": "chosen"})})
    results = analyse(study, table)
    chosen = {(row.arm, row.seed, row.point) for row in results.scores if row.selected}
    scores = tuple(row for row in results.scores if row.arm != "lora-r32" or row.split != "test"
                   or (row.arm, row.seed, row.point) in chosen)
    assert len(scores) < len(results.scores)
    assert view(study, results.model_copy(update={"scores": scores})).alerts == ()
    lost = {(row.arm, row.seed, row.point) for row in scores if row.arm == "lora-r32" and row.seed == 1} - chosen
    failed = tuple(row.model_copy(update={"outcome": Outcome.DIVERGED, "value": None})
                   if (row.arm, row.seed, row.point) in lost and row.step is None else row for row in scores)
    assert view(study, results.model_copy(update={"scores": failed})).alerts == ("LoRA r=32: DIVERGED in 2 of 15 cells.",)
    fewer = tuple(row for row in scores if (row.arm, row.seed, row.split) != ("lora-r32", 0, "test"))
    assert "LoRA r=32: 1 of 5 cells are missing." in view(study, results.model_copy(update={"scores": fewer})).alerts


def test_too_few_seeds_and_warnings_are_reasons_for_less_trust(new_study, new_results):
    assert [check.state for check in shown("two-seeds").checks if check.title.startswith("Replicates")] == ["bad"]
    edges = [AuditFinding(rule="best-rate-at-edge", severity="warning", message="extend the grid", where=str(number))
             for number in range(3)]
    warned = view(new_study(), new_results(audit=edges))
    assert warned.audit is not None
    assert any(check.title == "Audit: 3 warnings" for check in warned.checks)


def test_arms_that_beat_no_floor_are_told_before_the_answers(new_study, new_results):
    found = AuditFinding(rule="below-floor", severity="warning", message="summary: no arm is shown to beat lead-1", where="x")
    assert "summary: no arm is shown to beat lead-1." in view(new_study(), new_results(audit=[found])).alerts


def test_an_undeclared_look_is_called_exploratory(new_study, new_results):
    look = LookRow(number=2, num_looks=2, num_seeds=5, is_declared=False, alpha=0.025, caveat="exploratory, as seen before")
    found = view(new_study(), new_results(look=look))
    assert [(check.state, check.text) for check in found.checks if check.title == "Look: exploratory"] == [
        ("bad", "Exploratory, as seen before.")]


def test_the_scope_names_bases_tasks_and_budget():
    assert shown("supported").scope.startswith("Measured on tiny, learning new, 80 steps of training a run, scored on old besides.")


def test_a_hypothesis_without_a_finding_is_not_measured(new_study, new_results):
    found = view(new_study(), new_results(findings=()))
    assert {answer.answer.verdict for answer in found.cards} == {"NOT MEASURED"}
    assert found.summary == "5 hypotheses: 5 not measured."


def test_no_hypothesis_is_said(new_study, new_results):
    assert "states no hypothesis" in view(new_study(hypotheses=()), new_results(findings=())).summary


def test_a_repeated_publication_is_answered_by_its_claims_first(new_study, new_results):
    claims = tuple(Claim(claim=f"claim {number}", standing=standing)
                   for number, standing in enumerate(("survives", "undecided", "survives")))
    found = view(new_study(hypotheses=()), new_results(findings=(), claims=claims))
    assert found.summary == "Published claims, each with a flaw of its comparison mended: survives (2) and undecided (1)."
    text = markdown(found, ())
    assert "## Answers" not in text and text.index("## Published claims") < text.index("## Which arm to choose")
    written = page(found, ())
    assert written.index('id="claims"') < written.index('id="answer"') and written.count('id="claims"') == 1


def of_two_parts(new_finding, **changes):
    """H4 with two parts."""
    whole = new_finding("H4", "NOT MEASURED", None, None, None, contrast="")
    return (whole, *(new_finding("H4", contrast=name, **changes) for name in ("r32 - r8", "r128 - r32")))


def test_what_bounds_a_part_stands_in_both_files(new_study, new_results, new_finding):
    """The edge of a grid, the seeds that would settle it."""
    parts = of_two_parts(new_finding, verdict="INCONCLUSIVE", estimate=0.01, low=-0.02, high=0.04,
                         reason="the rate lies at the edge", settling="12 more seeds (17 in all) would show it")
    found = view(new_study(), new_results(findings=parts))
    for text in (markdown(found, ()), page(found, ())):
        assert text.count("The rate lies at the edge. 12 more seeds (17 in all) would show it.") == 2


@pytest.mark.parametrize("verdict", ["NOT MEASURED", "ASSAY FAILED"])
def test_parts_without_a_measured_sentence_say_what_they_compare(new_study, new_results, new_finding, parse_page, verdict):
    parts = of_two_parts(new_finding, verdict=verdict, estimate=None, low=None, high=None, reason="no scores yet")
    shown = parse_page(page(view(new_study(), new_results(findings=parts)), ())).text
    for left, right in ((32, 8), (128, 32)):
        name = f"LoRA r={left} (attention) \N{MINUS SIGN} LoRA r={right} (attention): score on pydoc-chat"
        assert shown.count(name) == 1
    decided = of_two_parts(new_finding, verdict="SUPPORTED", estimate=0.3, low=0.2, high=0.4)
    assert "\N{MINUS SIGN} LoRA" not in parse_page(page(view(new_study(), new_results(findings=decided)), ())).text


def test_the_intervals_are_said_to_cover_what_they_cover(new_study, new_results):
    def covered(*contrasts):
        study = new_study(hypotheses=[Hypothesis(name="H", statement="?", all_of=contrasts)])
        checks = view(study, new_results(findings=())).checks
        return next(check.text for check in checks if check.title == "Replicates: 5 seeds")

    def compared(**more):
        return Contrast(left="full", right="lora-r8", task="pydoc-chat", **more)

    score, bytes_kept, memory, rates, matched = (compared(**more) for more in (
        {}, {"quantity": "cost", "cost": "stored_bytes"}, {"quantity": "cost", "cost": "peak_host_bytes"},
        {"quantity": "learning-rate-ratio"}, {"quantity": "forgetting-at-matched-plasticity", "learned": "pydoc-chat"}))
    assert covered(score, bytes_kept) == "Intervals cover new seeds and new items."
    assert covered(score, rates, memory) == (
        "Intervals cover new seeds and new items, those of ratios of learning rates new seeds only, those of measured costs "
        "new repeats of the profile only.")
    assert "those of forgetting at equal learning and ratios of learning rates new seeds only" in covered(matched, rates)


def test_provenance_tells_each_known_fact_once_and_the_command_is_exact(study, new_results):
    packages = {"finetrial": "0.1.0", "torch": "2.13.0"}
    facts = {"command": "finetrial run perplexity --size standard", "python": "3.11.7", "memory_bytes": 25_276_502_016, "cores": 2,
             "cores_usable": 2, "packages": packages, "git_commit": None, "bases": {"gpt2": "openai-community/gpt2 (main)"},
             "environment": {"device": "cpu", "device_name": None, "torch": "2.13.0", "cpu_capability": "AVX512"}}
    found = view(study, new_results(provenance=facts))
    assert found.provenance[-7:] == (
        ("Python", "3.11.7"), ("memory", "25.3 GB"), ("processor cores", "2"), ("bases, gpt2", "openai-community/gpt2 (main)"),
        ("computed on", "cpu"), ("instruction set", "AVX512"), ("packages", "finetrial 0.1.0, torch 2.13.0"))
    changed = {**facts, "environment": {**facts["environment"], "torch": "2.12.0"}}
    assert ("environment, torch", "2.12.0") in view(study, new_results(provenance=changed)).provenance
    assert found.command == "finetrial run perplexity --size standard"
    unrecorded = view(study, new_results(provenance={}))
    assert unrecorded.command == "finetrial run perplexity --scale embedded --size standard"


def test_a_comparison_that_several_groups_ask_for_is_told_once():
    first, second, third = (Contrast(left=left, right="full", task="new") for left in ("lora-r8", "lora-r32", "oom-arm"))
    study, table = make_table("supported")
    study = study.model_copy(update={"hypotheses": (Hypothesis(name="H", statement="?", any_of=((first, second), (first, third))),)})
    found = view(study, analyse(study, table)).cards[0]
    assert len(found.parts) == 3 and found.answer.sentence.startswith("Of 3 comparisons (all of one of 2 groups must hold)")
