"""Arms of which a seed failed for good: left out of the recommendation by name, where nothing is left to wait for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from synthetic import make_table
from tests import sequences

from finetrial.analysis.analyse import analyse
from finetrial.records.record import Outcome
from finetrial.records.results import Recommendation
from finetrial.records.table import ItemScores, Table
from finetrial.spec import Study

ARM = "lora-r32"  # of the synthetic study; its rates are 1e-3, 3e-3 (the best) and 1e-2


def without(study: Study, table: Table, ended: Callable[[ItemScores], Outcome | None]) -> Recommendation:
    """The recommendation where rows ended in this outcome; those of None are not there."""
    rows = [(row, ended(row)) for row in table.scores]
    scores = [row if outcome is Outcome.OK else replace(row, outcome=outcome, statistics=None)
              for row, outcome in rows if outcome is not None]
    found = analyse(study, Table(scores, table.metrics, table.curves, table.costs, num_stages=1, num_done=1)).recommendation
    assert found is not None
    return found


def diverged_where(is_failed: Callable[[ItemScores], bool]) -> Callable[[ItemScores], Outcome | None]:
    """The outcome of a row: DIVERGED where this holds."""
    return lambda row: Outcome.DIVERGED if is_failed(row) else Outcome.OK


@pytest.mark.parametrize("rates", [(1e-3, 3e-3, 1e-2), (3e-3,)], ids=["every rate", "the rate that the others choose"])
def test_an_arm_with_a_seed_that_diverged_does_not_stop_the_answer(rates: tuple[float, ...]) -> None:
    found = without(*make_table("supported"), diverged_where(
        lambda row: (row.cell.arm, row.cell.seed) == (ARM, 2) and row.cell.point.learning_rate in rates))
    assert found.arm == "full"
    assert found.text.endswith("Not considered: LoRA r=32 (DIVERGED for seed 2).")


def test_of_each_outcome_it_is_told_which_seeds() -> None:
    outcomes = {1: Outcome.DIVERGED, 2: Outcome.OOM, 4: Outcome.OOM}
    found = without(*make_table("supported"), lambda row: outcomes.get(row.cell.seed or 0, Outcome.OK)
                    if row.cell.arm == ARM else Outcome.OK)
    assert found.text.endswith("Not considered: LoRA r=32 (DIVERGED for seed 1, OOM for seeds 2, 4).")


def test_an_arm_tried_at_one_rate() -> None:
    study, table = make_table("supported")
    arms = tuple(arm.model_copy(update={"learning_rates": (3e-3,)}) if arm.name == ARM else arm for arm in study.arms)

    def ended(row: ItemScores) -> Outcome | None:
        if row.cell.arm != ARM:
            return Outcome.OK
        is_planned = row.cell.point.learning_rate == 3e-3 and row.split == "test"  # nothing to choose: no validation
        return (Outcome.OOM if row.cell.seed == 0 else Outcome.OK) if is_planned else None

    found = without(study.model_copy(update={"arms": arms}), table, ended)
    assert found.arm == "full" and found.text.endswith("Not considered: LoRA r=32 (OOM for seed 0).")


def test_tested_at_the_chosen_rate_only() -> None:
    """Validation is all that is recorded of the seed that failed."""
    study, table = make_table("supported")
    study = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"rates": "chosen"})})

    def ended(row: ItemScores) -> Outcome | None:
        if (row.cell.arm, row.cell.seed, row.cell.point.learning_rate) != (ARM, 2, 3e-3):
            return Outcome.OK
        return Outcome.DIVERGED if row.split == "val" else None

    assert without(study, table, ended).text.endswith("Not considered: LoRA r=32 (DIVERGED for seed 2).")


@pytest.mark.parametrize("seed", [2, 4], ids=["the seed that failed elsewhere", "another"])
def test_an_arm_that_lacks_a_run_is_waited_for(seed: int) -> None:
    def ended(row: ItemScores) -> Outcome | None:
        if row.cell.arm != ARM:
            return Outcome.OK
        if (row.cell.seed, row.cell.point.learning_rate) == (seed, 1e-2):
            return None
        return Outcome.DIVERGED if row.cell.seed == 2 else Outcome.OK

    found = without(*make_table("supported"), ended)
    assert found.arm is None and found.text.startswith("cannot tell yet: LoRA r=32 has ")


def test_where_every_arm_lost_a_seed_there_is_nothing_to_recommend() -> None:
    found = without(*make_table("supported"), diverged_where(lambda row: row.cell.seed == 3))
    assert found.arm is None
    assert found.text.startswith("cannot tell yet: no arm finished for every seed (full fine-tuning (DIVERGED for seed 3), ")


@pytest.mark.parametrize("phase", [1, 2])
def test_along_a_sequence_outputs_that_were_never_made_are_explained_by_the_phase_that_failed(phase: int) -> None:
    """The last task is decided by chrF of outputs, which a seed that failed before has none of."""
    study, table = sequences.make_table(num_seeds=3)
    assert study.paths[0].name == sequences.FORTH

    def ended(row: ItemScores) -> Outcome | None:
        if (row.cell.arm, row.cell.seed) != ("both", 1) or row.phase < phase:
            return Outcome.OK
        return None if row.metric == "chrf" else Outcome.DIVERGED

    found = without(study, table, ended)
    assert found.arm == "full" and found.text.endswith("Not considered: LoRA and layer (DIVERGED for seed 1).")


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.OK, None])
def test_answers_that_could_not_be_made_are_not_waited_for(outcome: Outcome | None) -> None:
    """Training went well: the outputs alone, by which the last task is decided, ended so, are there, or are not tried yet."""
    study, table = sequences.make_table(num_seeds=3)

    def ended(row: ItemScores) -> Outcome | None:
        is_last = (row.cell.arm, row.cell.seed, row.phase, row.metric) == ("both", 1, 2, "chrf")
        return outcome if is_last else Outcome.OK

    found = without(study, table, ended)
    if outcome is Outcome.OOM:
        assert found.arm == "full" and found.text.endswith("Not considered: LoRA and layer (OOM for seed 1).")
    else:
        assert "Not considered" not in found.text
        assert (found.arm is None) == (outcome is None)
