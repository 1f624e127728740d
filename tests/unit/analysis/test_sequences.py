"""Sequences, routing, floors, factorials and outputs: analyse() says what was planted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests import sequences
from tests.sequences import CODE, DOCS, FORGETS, FORTH, LEARNS, OLD

from finetrial.analysis.analyse import analyse
from finetrial.analysis.assay import assay
from finetrial.analysis.contrasts import answer
from finetrial.analysis.loading import Branch
from finetrial.analysis.selection import Choice
from finetrial.analysis.trial import Trial
from finetrial.records.results import Cost, Finding, Measure, Results
from finetrial.records.table import Table
from finetrial.report import build
from finetrial.spec import Contrast, Study


@cache
def trial() -> Trial:
    return Trial(*sequences.make_table())


@cache
def results() -> Results:
    return analyse(*sequences.make_table())


def finding(hypothesis: str) -> Finding:
    return next(row for row in results().findings if row.hypothesis == hypothesis and row.contrast)


def measure(name: str, arm: str, phase: int, task: str, sequence: str = FORTH, metric: str = "nats-per-token",
            routing: str = "latest") -> Measure:
    wanted = (name, arm, phase, task, sequence, metric, routing)
    return next(row for row in results().measures if wanted == (row.measure, row.arm, row.phase, row.task,
                                                                row.sequence, row.metric, row.routing))


def estimated(**contrast: object) -> object:
    return answer(trial(), Contrast(**{"sequence": FORTH, **contrast}))


def test_complete_and_in_its_schema() -> None:
    assert results().status == "complete"
    assert Results.model_validate_json(results().model_dump_json()) == results()


def test_the_score_table_holds_every_phase_task_and_routing() -> None:
    rows = {(row.phase, row.task, row.routing): row for row in results().measures
            if (row.measure, row.arm, row.sequence, row.metric) == ("score", "lora", FORTH, "nats-per-token")}
    assert len(rows) == 2 * 3 * 2
    for (phase, task, routing), row in rows.items():
        planted = sequences.loss("lora", (DOCS, CODE), phase, task, routing)
        assert row.low is not None and row.high is not None and row.low < planted < row.high
    floors = {row.arm: row for row in results().measures if row.arm.startswith("floor:")}
    assert floors["floor:copy"].value == pytest.approx(0.16, abs=0.01)
    assert floors["floor:copy"].n_seeds is None and "items only" in floors["floor:copy"].note


def test_one_row_for_the_base_though_it_is_recorded_along_every_sequence() -> None:
    rows = [row for row in results().scores if (row.arm, row.task, row.split) == ("base", OLD, "test")]
    assert len(rows) == 1 and rows[0].selected
    assert [role for role in results().roles.values()][:3] == ["base", "floor", "floor"]
    assert results().arms["floor:copy"] == "the input copied (floor)"


def test_what_was_planted() -> None:
    assert measure("forgetting", "full", 2, DOCS).value == pytest.approx(FORGETS["full"], abs=0.03)
    assert measure("plasticity", "layer", 2, CODE).value == pytest.approx(LEARNS["layer"] + sequences.HELPS, abs=0.03)
    assert measure("forward-transfer", "lora", 1, CODE).value == pytest.approx(sequences.HELPS, abs=0.03)
    assert measure("drift", "both", 2, "").value == pytest.approx(2 * FORGETS["both"], abs=0.03)
    kept = 1 - FORGETS["lora"] / LEARNS["lora"]
    retention = measure("retention", "lora", 2, DOCS)
    assert retention.low is not None and retention.high is not None and retention.low < kept < retention.high


def test_untouched_weights_forget_exactly_nothing() -> None:
    for arm in ("lora", "layer", "both"):
        for name, sequence, task in (("forgetting", FORTH, DOCS), ("backward-transfer", FORTH, ""),
                                     ("forgetting-max", FORTH, DOCS), ("forgetting", sequences.BACK, CODE)):
            row = measure(name, arm, 2, task, sequence, routing="oracle")
            assert row.by_construction and row.value == 0.0 and row.low is None and row.high is None
            assert row.note.startswith("zero by construction")
    assert measure("retention", "lora", 2, DOCS, routing="oracle").value == 1.0
    assert measure("forgetting", "both", 2, CODE, sequences.BACK, "chrf", "oracle").by_construction
    trained_on = measure("forgetting", "full", 2, DOCS, routing="oracle")
    assert not trained_on.by_construction and trained_on.value == pytest.approx(FORGETS["full"], abs=0.03)
    assert not measure("forgetting", "lora", 2, DOCS).by_construction  # LATEST: other weights answer
    assert not measure("forgetting", "lora", 2, OLD, routing="oracle").by_construction


def test_without_digests_nothing_is_by_construction() -> None:
    study, table = sequences.make_table(num_seeds=3)
    bare = Table([replace(row, answer_digest=None) for row in table.scores], table.metrics)
    rows = analyse(study, bare).measures
    assert rows and not any(row.by_construction for row in rows)


def test_a_contrast_of_zeros_decides_no_direction() -> None:
    found = finding("H2")
    assert (found.verdict, found.by_construction, found.estimate, found.low) == ("EQUIVALENT", True, 0.0, None)
    assert found.exact
    assert found.family is None and found.p_value is None and found.reason.startswith("zero by construction")
    one_side = estimated(left="layer", right="full", quantity="forgetting", task=DOCS, routing="oracle")
    assert one_side.has_interval and one_side.estimate.mean == pytest.approx(-FORGETS["full"], abs=0.03)
    assert one_side.notes == ("new layer: forgetting is zero by construction: the weights that answer are untouched",)
    matched = estimated(left="layer", right="lora", quantity="forgetting-at-matched-plasticity", task=DOCS,
                        learned=CODE, routing="oracle")
    assert matched.by_construction


def test_verdicts() -> None:
    assert finding("H1").estimate == pytest.approx(FORGETS["layer"] - FORGETS["full"], abs=0.03)
    assert finding("H3").estimate == pytest.approx(sequences.INTERACTION, abs=0.01)
    assert finding("H3").contrast == "(both - layer) - (lora - base): score on code (chrf)"
    assert finding("H3").verdict == "REFUTED"
    assert finding("H4").estimate == pytest.approx(0.08, abs=0.01)
    assert finding("H5").contrast == "full (docs-code) - full (only-code): score on code (nats-per-token)"
    assert finding("H5").estimate == pytest.approx(sequences.HELPS, abs=0.03)
    assert finding("H7").verdict == "SUPPORTED"
    assert [row.verdict for row in results().findings if row.hypothesis == "H6"] == ["SUPPORTED"] * 5


def test_the_same_contrast_counts_once_in_the_family() -> None:
    rows = [row for row in results().findings if row.contrast and row.family == "primary"]
    distinct = {row.contrast for row in rows}
    largest = max((row.p_value or 0.0) for row in rows)
    assert len(distinct) == 7 and len(rows) == 8  # H1, H3, H4, H5, three of H6, one of them twice
    assert max(row.p_adjusted or 0.0 for row in rows) <= 7 * largest


def test_measured_costs_are_ratios_within_repeats() -> None:
    found = next(row for row in results().findings if "train_seconds" in row.contrast)
    assert (found.unit, found.n_repeats, found.n_seeds, found.family) == ("ratio", 5, None, "primary")
    assert found.low is not None and found.high is not None and found.low < 1.5 < found.high < 1.55
    exact = estimated(left="full", right="lora", quantity="cost", cost="params_trainable", task=CODE)
    assert exact.exact and exact.unit == "parameters" and exact.estimate.mean == 4_920_000


def test_without_repeats_a_measured_cost_has_no_interval() -> None:
    study, table = sequences.make_table(num_seeds=3)
    once = Table(table.scores, table.metrics, costs=[row.model_copy(update={"repeats": {}}) for row in table.costs])
    found = next(row for row in analyse(study, once).findings if "train_seconds" in row.contrast)
    assert (found.verdict, found.estimate, found.low) == ("INCONCLUSIVE", pytest.approx(1.5), None)
    assert found.reason == "1 repeat of the profile: no interval below 3"
    assert Cost(base="b", arm="a", task="t").repeats == {}


def test_items_only_where_nothing_was_trained() -> None:
    found = estimated(left="base", right="floor:copy", task=CODE)
    assert found.estimate.num_seeds == 0 and found.estimate.num_clusters == 30
    assert found.estimate.mean == pytest.approx(-0.08, abs=0.01)


def test_quantities_without_a_task_are_means_in_one_unit() -> None:
    assert estimated(left="full", right="lora", quantity="average-score").metric == "nats-per-token"
    assert estimated(left="full", right="lora", quantity="drift").estimate.mean == pytest.approx(0.6, abs=0.03)
    assert estimated(left="full", right="lora", quantity="backward-transfer", task=CODE).reason == (
        "backward-transfer of code is not defined: the sequence learns docs, code")


def test_rates_are_tuned_in_nats_and_outputs_read_where_they_are() -> None:
    assert all(row.chosen == sequences.RATES[row.arm][sequences.BEST] for row in results().tuning)
    by_task = {row.task: row.chosen_by_primary for row in results().tuning}
    assert by_task[DOCS] is not None and by_task[CODE] is None
    assert results().recommendation is not None and results().recommendation.arm == "both"


def test_a_missing_output_leaves_the_run_incomplete() -> None:
    study, table = sequences.make_table(num_seeds=3)
    lost = [row for row in table.scores if (row.cell.arm, row.cell.seed, row.metric) != ("lora", 2, "chrf")]
    found = analyse(study, Table(lost, table.metrics, costs=table.costs))
    assert found.status == "partial"
    assert next(row for row in found.findings if row.hypothesis == "H4" and row.contrast).verdict == "NOT MEASURED"


def test_an_arm_that_goes_along_some_sequences_is_not_missed_on_the_others() -> None:
    study, table = sequences.make_table(num_seeds=3)
    arms = tuple(arm.model_copy(update={"sequences": (FORTH,)}) if arm.name == "layer" else arm for arm in study.arms)
    kept = [row for row in table.scores if row.cell.arm != "layer" or row.cell.sequence == FORTH]
    found = analyse(study.model_copy(update={"arms": arms}), Table(kept, table.metrics, costs=table.costs))
    assert found.status == "complete"
    assert {row.sequence for row in found.measures if row.arm == "layer"} == {FORTH}


def test_a_task_on_the_way_has_no_scores_and_leaves_no_gap() -> None:
    study, table = sequences.make_table(num_seeds=3)
    tasks = tuple(use.model_copy(update={"evaluate": use.name != DOCS}) for use in study.tasks)
    kept = [row for row in table.scores if row.task != DOCS or row.split == "val"]
    found = analyse(study.model_copy(update={"tasks": tasks}), Table(kept, table.metrics, costs=table.costs))
    assert found.status == "complete"
    assert not [row for row in found.measures if row.task == DOCS]
    assert next(row for row in found.findings if row.hypothesis == "H4" and row.contrast).verdict == "SUPPORTED"


def test_examples_are_chosen_by_rule_and_show_every_arm() -> None:
    rows = [row for row in results().examples if row.sequence == FORTH]
    counts = {kind: sum(row.chosen == kind for row in rows) for kind in ("best", "median", "worst", "random")}
    assert counts == {"best": 4, "median": 4, "worst": 4, "random": 8}
    assert {(row.left, row.right) for row in rows} == {("both", "layer")}  # the first score contrast on code
    best, worst = (next(row for row in rows if row.chosen == kind) for kind in ("best", "worst"))
    assert (best.difference or 0) > (worst.difference or 0)
    assert [one.arm for one in best.written] == ["base", "floor:copy", "floor:lead-1", "full", "lora", "layer", "both"]
    assert best.reference and best.input and len({row.item for row in rows}) == len(rows)
    again = {row.item for row in results().examples if row.sequence == sequences.BACK and row.chosen == "random"}
    assert len(again) == 8


def test_distributions_are_quantiles_over_items() -> None:
    rows = {row.arm: row for row in results().distributions if row.sequence == FORTH}
    assert set(rows) == {"base", "floor:copy", "floor:lead-1", "full", "lora", "layer", "both"}
    assert (rows["lora"].n, rows["floor:copy"].n, len(rows["lora"].quantiles)) == (5 * 60, 60, 21)
    assert np.all(np.diff(rows["lora"].quantiles) >= 0) and not rows["lora"].is_yes_or_no
    assert rows["floor:copy"].num_distinct == 60


def test_several_points_of_one_arm_are_told_and_do_not_raise() -> None:
    study, table = sequences.make_grid(num_seeds=3)
    assert analyse(study, table).factors["r8-n30"] == {"rank": 8, "num_train": 30}
    one = next(arm for arm in study.arms if arm.name == "r8-n30")
    merged = [replace(row, cell=replace(row.cell, arm="r8-n30")) if row.cell.arm == "r8-n100" else row
              for row in table.scores]
    found = analyse(Study(**{**dict(study), "arms": (one,), "hypotheses": ()}), Table(merged, table.metrics))
    notes = {row.note for row in found.measures if row.arm == "r8-n30"}
    assert len(notes) == 1 and notes.pop() == (
        "LoRA r=8, N=30: has runs at num_train 30 and num_train 100; make each an arm of its own (seeds 0, 1, 2)")
    assert found.status == "partial"


def test_a_ratio_of_ratios_is_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match="compare forgetting instead"):
        Contrast(left="a", right="b", quantity="retention", task=DOCS)
    with pytest.raises(ValueError, match="forward-transfer"):
        Contrast(left="a", right="b", quantity="forward-tranfer", task=DOCS)
    with pytest.raises(ValueError, match="left and right are both"):
        Contrast(left="a", right="a", task=DOCS, sequence="x")
    with pytest.raises(ValueError, match="an interaction is of scores or measures"):
        Contrast(left="a", right="b", quantity="cost", cost="params_total", interaction=("c", "d"))
    assert Contrast(left="a", right="a", task=DOCS, left_sequence="x", right_sequence="y").sides[1].sequence == "y"


def test_the_aa_control_is_read_where_both_arms_came_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains every phase at the centre; an arm that went on from another rate is another arm from there on."""
    study, table = sequences.make_table()
    assert results().assay.aa_compared == ("full fine-tuning at 3e-4 minus full fine-tuning, repeated at its centre rate, on code, "
                                           "docs-code")
    choices = Trial.choices

    def off_centre(self: Trial, branch: Branch, phase: int, metric: str = "nats-per-token") -> dict[int, Choice]:
        found = choices(self, branch, phase, metric)
        return {seed: replace(choice, rate=sequences.RATES["full"][0]) for seed, choice in found.items()} \
            if (branch.arm, phase) == ("full", 1) else found

    monkeypatch.setattr(Trial, "choices", off_centre)
    found = assay(Trial(study, table))
    assert found.aa_compared.startswith("full fine-tuning at 3e-4 minus full fine-tuning, repeated at its centre rate, on docs, "
                                        "docs-code, after phase 1")
    assert found.aa_low is not None and found.aa_high is not None and found.aa_low < 0 < found.aa_high


def test_where_the_study_leaves_the_tasks_own_metric_out_nothing_asks_for_it(tmp_path: Path) -> None:
    """pycode is scored by chrF, unless its use names other metrics."""
    study, table = sequences.make_table(num_seeds=3)
    tasks = tuple(use.model_copy(update={"metrics": ("nats-per-token",)}) if use.name == CODE else use for use in study.tasks)
    hypotheses = tuple(one for one in study.hypotheses if "floor:copy" not in str(one))
    study = study.model_copy(update={"tasks": tasks, "hypotheses": hypotheses})
    kept = [row for row in table.scores if row.metric != "chrf" and not row.cell.arm.startswith("floor")]
    losses = {"nats-per-token": table.metrics["nats-per-token"]}
    found = analyse(study, Table(kept, losses, costs=table.costs, curves=table.curves))
    assert found.status == "complete" and found.recommendation is not None and found.recommendation.arm == "full"
    assert {row.metric for row in found.scores if row.primary} == {"nats-per-token"}
    contrasts = {row.contrast for row in found.findings if row.hypothesis == "H3"}
    assert "(both - layer) - (lora - base): score on code (nats-per-token)" in contrasts
    build(study, found, tmp_path, figures=False)
    assert "chrF" not in (tmp_path / "analysis.md").read_text(encoding="utf-8")
