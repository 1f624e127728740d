"""The twelve synthetic cases: analyse() says the planted truth, and nothing more."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.synthetic import CASES, GRIDS, MARGIN, make_table

from finetrial.analysis.analyse import analyse
from finetrial.analysis.assay import harm
from finetrial.analysis.estimate import Estimate
from finetrial.records.record import Outcome
from finetrial.records.results import Finding, Results
from finetrial.records.table import Metric, Table


@cache
def results(case: str) -> Results:
    return analyse(*make_table(case))


def whole(case: str, hypothesis: str = "H1") -> Finding:
    return next(row for row in results(case).findings if row.hypothesis == hypothesis and not row.contrast)


def part(case: str, hypothesis: str = "H1") -> Finding:
    return next(row for row in results(case).findings if row.hypothesis == hypothesis and row.contrast)


@pytest.mark.parametrize("case", CASES)
def test_results_keep_their_schema(case: str) -> None:
    found = results(case)
    assert Results.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("case", "verdict"), [
    ("supported", "SUPPORTED"), ("refuted", "REFUTED"), ("equivalent", "EQUIVALENT"), ("inconclusive", "INCONCLUSIVE"),
    ("assay-failed", "ASSAY FAILED"), ("missing-cells", "NOT MEASURED"), ("oom-arm", "SUPPORTED"),
    ("diverged-rate", "SUPPORTED"), ("best-at-edge", "SUPPORTED"), ("two-seeds", "NOT MEASURED"),
    ("base-only", "NOT MEASURED"), ("nothing", "NOT MEASURED")])
def test_verdict(case: str, verdict: str) -> None:
    assert whole(case).verdict == part(case).verdict == verdict


@pytest.mark.parametrize("case", CASES)
def test_status(case: str) -> None:
    partial = case in ("missing-cells", "base-only", "nothing")
    assert results(case).status == ("partial" if partial else "complete")


@pytest.mark.parametrize("case", ["supported", "refuted", "equivalent"])
def test_estimates_contain_the_planted_effect(case: str) -> None:
    found = part(case)
    assert found.low is not None and found.high is not None
    assert found.low < CASES[case].effect < found.high
    assert (found.n_seeds, found.n_clusters, found.family, found.unit) == (5, 30, "primary", "nats/token")
    assert found.contrast == "full - lora-r8: score on new (nats-per-token)"
    assert found.margin == MARGIN


def test_statements_say_what_is_claimed_and_reasons_only_what_bounds_it() -> None:
    assert part("supported").statement == "full fine-tuning scores better than LoRA r=8 on new"
    assert part("supported", "H2").statement == "LoRA r=8 forgets less of old than full fine-tuning"
    assert part("supported", "H3").statement == (
        "best learning rate of LoRA r=8 over that of full fine-tuning lies between 5 and 20")
    assert part("supported").reason == part("refuted").reason == part("inconclusive").reason == ""
    assert part("missing-cells").reason.startswith("4 of 5 seeds measured: LoRA r=8: no test scores on new")
    assert part("two-seeds").reason == "2 seeds: no interval below 3 seeds, no verdict: run at least 3"
    assert part("supported", "H5").reason.startswith("at plasticity 0.6")
    assert whole("missing-cells").reason == part("missing-cells").reason


def test_other_quantities() -> None:
    ratio = part("supported", "H3")
    assert ratio.verdict == "SUPPORTED" and ratio.estimate == pytest.approx(10, rel=0.1)
    assert ratio.confidence is not None and ratio.n_clusters is None
    rows = [row for row in results("supported").findings if row.hypothesis == "H4"]
    assert [row.verdict for row in rows] == ["SUPPORTED"] * 3
    assert rows[2].estimate == rows[2].low == rows[2].high == 294_912 - 6_900_000
    assert [row.exact for row in rows] == [False, False, True]
    matched = part("supported", "H5")
    assert (matched.verdict, matched.family, matched.p_adjusted, matched.confidence) == ("SUPPORTED", None, None, 0.95)
    assert matched.estimate == pytest.approx(-0.17, abs=0.03)


def test_a_failed_arm_leaves_its_contrast_unmeasured_and_the_others_alone() -> None:
    assert whole("oom-arm", "H4").verdict == "NOT MEASURED"
    assert "LoRA r=32: no learning rate finished (OOM)" in whole("oom-arm", "H4").reason
    cells = [row for row in results("oom-arm").scores if row.arm == "lora-r32" and row.step is None]
    assert cells and all(row.value is None and row.outcome is Outcome.OOM and not row.selected for row in cells)
    recommended = results("oom-arm").recommendation
    assert recommended is not None and recommended.text.endswith("Not considered: LoRA r=32 (OOM).")


def test_a_diverged_rate_is_never_chosen() -> None:
    chosen = [row for row in results("diverged-rate").tuning if row.arm == "full"]
    assert [row.chosen for row in chosen] == [3e-4] * 5
    assert all(row.validation[2] is None for row in chosen)
    assert "did not finish" in whole("diverged-rate", "H3").reason


def test_a_best_rate_at_the_edge_gives_no_ratio_of_rates() -> None:
    assert {row.arm for row in results("best-at-edge").tuning if row.at_edge} == set(GRIDS)
    assert whole("best-at-edge", "H3").verdict == "NOT MEASURED"


def test_controls() -> None:
    seen = results("supported").assay
    assert seen.positive_control == "seen" and seen.aa_low is not None and seen.aa_high is not None
    assert seen.aa_low < 0 < seen.aa_high
    assert re.match(r"the control did worse, as it must: full fine-tuning at 10 times its centre rate against full "
                    r"fine-tuning at 3e-4, on "
                    r"old: loss 1\.0\d+ nats/token higher \(95 % interval 0\.9\d+ to 1\.\d+; 5 seeds, \d+ clusters\)$",
                    seen.positive_text)
    assert results("assay-failed").assay.positive_control == "not seen"
    assert results("two-seeds").assay.positive_control == "not measured"
    assert all(row.verdict == "ASSAY FAILED" for row in results("assay-failed").findings)
    study, table = make_table("supported")
    bare = analyse(study.model_copy(update={"controls": None}), table)
    assert bare.assay.positive_control == "not planned" and bare.findings[0].verdict == "SUPPORTED"


def test_a_control_is_told_in_the_direction_of_its_metric() -> None:
    """The estimate is the arm minus its control, signed so that above 0 the control is worse."""
    loss, rouge = (Metric(name, 1, unit, better, lambda sums: sums[..., 0])
                   for name, unit, better in (("nats-per-token", "nats/token", False), ("rouge-l", "ROUGE-L", True)))
    worse = Estimate(1.4, 0.1, 4.0, 1.2, 1.6, 0.95, 0.001, 5, 60)
    assert harm(worse, loss) == "loss 1.40 nats/token higher (95 % interval 1.20 to 1.60; 5 seeds, 60 clusters)"
    assert harm(worse, rouge).startswith("score 1.40 ROUGE-L lower (95 % interval 1.20 to 1.60;")
    assert harm(worse.mirrored(), loss).startswith("loss 1.40 nats/token lower (95 % interval 1.20 to 1.60;")
    assert harm(replace(worse, low=-0.1, high=2.9).mirrored(), rouge).startswith(
        "score 1.4 ROUGE-L higher (95 % interval \N{MINUS SIGN}0.1 to 2.9;")
    assert "all runs and items agree" in harm(replace(worse, low=1.4, high=1.4), loss)


def test_scores_mark_what_validation_chose() -> None:
    rows = [row for row in results("supported").scores
            if row.arm == "full" and row.split == "test" and row.metric == "nats-per-token" and row.task == "new"]
    assert sum(row.selected for row in rows) == 5 and len(rows) == 15
    assert {row.point.learning_rate for row in rows if row.selected} == {3e-4}
    assert all(row.primary and row.n == 60 and row.n_missing == 0 for row in rows)
    assert sum(row.step is not None for row in results("supported").scores) == 55 * 4 * 2


def test_score_measures() -> None:
    rows = {(row.arm, row.task, row.metric): row for row in results("supported").measures if row.measure == "score"}
    full, base = rows["full", "new", "nats-per-token"], rows["base", "new", "nats-per-token"]
    assert full.low is not None and full.value is not None and full.high is not None
    assert full.low < full.value < full.high and (full.n_seeds, full.n_clusters) == (5, 30)
    assert base.n_seeds is None and base.low is not None and "items only" in base.note
    selected = [row.value for row in results("supported").scores if row.selected and row.split == "test"
                and (row.arm, row.task, row.metric) == ("full", "new", "perplexity")]
    assert rows["full", "new", "perplexity"].value == pytest.approx(np.mean([value for value in selected if value]))
    assert rows["full-aa", "new", "nats-per-token"].value == pytest.approx(3.04, abs=0.03)
    partial = {row.arm: row for row in results("missing-cells").measures
               if (row.measure, row.metric, row.task) == ("score", "nats-per-token", "new")}
    assert partial["lora-r8"].n_seeds == 4 and "seed 4" in partial["lora-r8"].note


def test_recommendation() -> None:
    arms = {case: results(case).recommendation for case in CASES}
    assert all(found is not None for found in arms.values())
    assert {case: found.arm for case, found in arms.items() if found} == {
        "supported": "full", "refuted": "lora-r8", "equivalent": "lora-r8", "inconclusive": "lora-r8",
        "assay-failed": None, "missing-cells": None, "oom-arm": "full", "diverged-rate": "full",
        "best-at-edge": "full", "two-seeds": None, "base-only": None, "nothing": None}
    equivalent = arms["equivalent"]
    assert equivalent is not None and equivalent.runners_up == ("lora-r32", "full")
    assert equivalent.text.startswith("LoRA r=8 trains 73.7 k parameters and is the cheapest arm not shown to be worse")
    assert "it is behind by" in equivalent.text and "95 % interval" in equivalent.text
    assert all(found.text.startswith("cannot tell yet") for found in arms.values() if found and found.arm is None)


def test_items_without_a_score_are_left_out_and_counted() -> None:
    study, table = make_table("supported")
    for row in table.scores:
        if row.cell.arm == "full" and row.cell.seed == 0 and row.split == "test" and row.statistics is not None:
            row.statistics[:2] = np.nan
    found = next(row for row in analyse(study, table).findings if row.contrast)
    assert found.verdict == "SUPPORTED" and found.n_clusters == 29
    assert "2 items without a score in every run are left out" in found.reason


def test_a_diverged_seed_at_the_chosen_rate_is_not_left_out_silently() -> None:
    study, table = make_table("supported")
    scores = [type(row)(**{**vars(row), "statistics": None, "outcome": Outcome.DIVERGED})
              if (row.cell.arm, row.cell.seed, row.cell.point.learning_rate, row.split) == ("full", 1, 3e-4, "test")
              else row for row in table.scores]
    failed = analyse(study, Table(scores, table.metrics, costs=table.costs))
    found = next(row for row in failed.findings if row.contrast)
    assert found.verdict == "NOT MEASURED"
    assert found.reason == "4 of 5 seeds measured: full fine-tuning: DIVERGED at learning rate 0.0003 (seed 1)"


def test_analysis_needs_no_torch() -> None:
    code = ("import sys; sys.modules['torch'] = None; from tests.synthetic import make_table; "
            "from finetrial.analysis.analyse import analyse; "
            "print(analyse(*make_table('supported')).findings[0].verdict)")
    paths = [path for path in sys.path if path]
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"], capture_output=True,
                          text=True, check=False)
    assert done.stdout.strip() == "SUPPORTED", done.stderr


def test_each_declared_look_is_judged_at_its_share_of_the_error_rate() -> None:
    study, table = make_table("inconclusive")
    once = analyse(study, table)
    twice = analyse(study.model_copy(update={"looks": (3, len(study.seeds))}), table, earlier_looks=(3,))
    exploratory = analyse(study, table, earlier_looks=(3,))
    assert once.look is not None and once.look.caveat == "" and once.look.alpha == pytest.approx(0.05)
    for found, number in ((once, 1), (twice, 2), (exploratory, 2)):
        assert {row.look for row in found.findings} == {number}
    widths = [next(row.high - row.low for row in found.findings if row.contrast and row.high is not None)
              for found in (once, twice, exploratory)]
    assert widths[0] < widths[1] == pytest.approx(widths[2])
    assert exploratory.look is not None and exploratory.look.caveat.startswith("exploratory,")


def test_an_open_comparison_says_what_would_settle_it() -> None:
    study, table = make_table("inconclusive")
    open_rows = [row for row in analyse(study, table).findings if row.contrast and row.verdict == "INCONCLUSIVE"]
    assert open_rows and all(row.settling for row in open_rows)
    decided = [row for row in analyse(*make_table("supported")).findings if row.verdict == "SUPPORTED"]
    assert decided and all(row.settling == "" and row.more_seeds is None for row in decided)


def test_an_interval_of_a_level_ends_where_no_value_can_lie() -> None:
    """Just above the largest loss, no loss may lie: levels' intervals are cut there, those of differences are not."""
    study, table = make_table("supported")
    metric, name = table.metrics["nats-per-token"], "nats-per-token"
    whole = [row for row in analyse(study, table).measures if row.metric == name and row.high is not None]
    levels = [row for row in whole if row.measure in ("score", "average-score")]
    most = max(row.value for row in levels) + 0.01
    narrow = replace(table, metrics={**table.metrics, name: replace(metric, most=most)})
    found = [row for row in analyse(study, narrow).measures if row.metric == name and row.high is not None]
    for cut, before in zip(found, whole, strict=True):
        assert cut.high == (min(before.high, most) if before in levels else before.high)
        assert (cut.value, cut.low) == (before.value, before.low) and cut.low <= cut.value <= cut.high
    assert any(cut.high != before.high for cut, before in zip(found, whole, strict=True))


def test_an_end_of_the_scale_on_the_wrong_side_of_a_value_leaves_the_value_in_its_interval() -> None:
    study, table = make_table("supported")
    metric = table.metrics["nats-per-token"]
    wrong = replace(table, metrics={**table.metrics, "nats-per-token": replace(metric, most=1.0)})
    for row in analyse(study, wrong).measures:
        assert row.low is None or row.low <= row.value <= row.high


def test_scores_that_cancel_may_be_missing() -> None:
    """What the base scored on the old text cancels between two arms: without it the finding stands, and says less."""
    study, table = make_table("supported")
    scores = [replace(row, statistics=np.full_like(row.statistics, np.nan)) if (row.cell.arm, row.task) == ("base", "old")
              else row for row in table.scores]
    before = {row.contrast: row for row in analyse(study, table).findings if "forgetting of old" in row.contrast}
    after = {row.contrast: row for row in analyse(study, replace(table, scores=scores)).findings}
    assert before
    for name, row in before.items():
        assert (after[name].estimate, after[name].verdict) == (row.estimate, row.verdict)
