"""Limits of the recommendation: which arm stays, why the others fall, and what is open."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import make_table

from finetrial.analysis.analyse import analyse
from finetrial.analysis.limits import judge, standing
from finetrial.analysis.loading import Branch
from finetrial.analysis.recommend import _some_of
from finetrial.analysis.trial import Trial
from finetrial.records.record import Outcome
from finetrial.records.results import Recommendation
from finetrial.records.table import Table
from finetrial.spec.study import Limits, Sequence


def recommended(case: str, seeds: int | None = None, **limits: Any) -> Recommendation:
    """The recommendation of a synthetic case under limits, read at its first seeds only if asked."""
    study, table = make_table(case)
    study = study.model_copy(update={"limits": Limits(**limits)})
    if seeds is not None:
        study = study.model_copy(update={"seeds": tuple(range(seeds))})
    found = analyse(study, table).recommendation
    assert found is not None
    return found


def told_by(found: Recommendation) -> str:
    """All that it says."""
    return " ".join((found.text, *found.others))


def test_without_limits_the_others_are_told_why_they_fell() -> None:
    found = recommended("supported")
    assert found.arm == "full"
    assert "Not LoRA r=8: it is behind full fine-tuning by 0.3" in told_by(found)
    cheap = recommended("equivalent")
    assert cheap.arm == "lora-r8"
    assert "Not full fine-tuning: it trains more, 6.90 M parameters." in told_by(cheap)


def test_of_equally_cheap_arms_the_better_is_chosen_and_reasons_that_arms_share_are_told_once() -> None:
    study, table = make_table("equivalent")
    level = {name: np.mean([row.value for row in analyse(study, table).scores
                            if (row.arm, row.task, row.split, row.selected, row.metric) ==
                            (name, "new", "test", True, "nats-per-token")]) for name in (arm.name for arm in study.arms)}
    best, second, worst = sorted(level, key=level.__getitem__)
    arms = tuple(study.arm(name) for name in (best, worst, second))  # the better of the two cheap ones comes last
    study = study.model_copy(update={"arms": arms})
    costs = [row.model_copy(update={"params_trainable": 9 if row.arm == best else 7}) if row.params_trainable else row
             for row in table.costs]
    alike = Table(table.scores, table.metrics, table.curves, costs, num_stages=table.num_stages, num_done=table.num_done)
    found = analyse(study, alike).recommendation
    assert found is not None and (found.arm, found.runners_up) == (second, (worst, best))
    assert told_by(found).count("it is no cheaper, and its score no better.") == 1


def test_a_reason_that_arms_share_is_said_once() -> None:
    study, table = make_table("supported")
    costs = [row.model_copy(update={"peak_host_bytes": None}) for row in table.costs]
    bare = Table(table.scores, table.metrics, table.curves, costs, num_stages=table.num_stages, num_done=table.num_done)
    study = study.model_copy(update={"limits": Limits(max_memory_bytes=10**9)})
    found = analyse(study, bare).recommendation
    assert found is not None
    assert "Not full fine-tuning; LoRA r=8; LoRA r=32: what it needs is not measured, and there is a limit" in told_by(found)


@pytest.mark.parametrize(("limits", "arm", "told"), [
    ({"max_trainable": 1_000_000}, "lora-r32", "Not full fine-tuning: it trains 6.90 M parameters; the limit is 1.00 M."),
    ({"max_trainable": 100_000}, "lora-r8", "it trains 295 k parameters; the limit is 100 k"),
    ({"max_trainable_share": 0.02}, "lora-r8", "it trains 4.27 % of the base's parameters; the limit is 2.00 %"),
    ({"max_memory_bytes": 410_000_000}, "lora-r32", "it needs 483 MB in training; the limit is 410 MB"),
    ({"max_forgetting": 0.45}, "lora-r32", "Not full fine-tuning: it forgets 0.59"),
    ({"max_forgetting_share": 0.1}, "lora-r8", "it forgets 0.3"),
    ({"max_forgetting": 0.45, "max_trainable": 100_000}, "lora-r8", "and is the only arm within the limits.")])
def test_a_limit_takes_arms_out_and_says_why(limits: dict[str, float], arm: str, told: str) -> None:
    found = recommended("supported", **limits)
    assert found.arm == arm
    assert told in told_by(found)


def test_no_arm_within_the_limits() -> None:
    found = recommended("supported", max_trainable=1_000)
    assert found.arm is None and found.text == "no arm stays within the limits"
    assert found.others[0].startswith("Not full fine-tuning: it trains") and told_by(found).count("the limit is 1.00 k") == 3


def test_forgetting_that_straddles_its_limit_is_open_and_says_how_many_seeds() -> None:
    found = recommended("inconclusive", max_forgetting=0.2)  # planted: 0.2, 0.3 and 0.6, with noise between seeds
    assert found.arm is None
    assert found.text.startswith("cannot tell yet: LoRA r=8: it forgets")
    assert "the limit is 0.200; which side it is on is open: " in told_by(found) and "seeds" in told_by(found)


def test_what_is_open_and_changes_nothing_is_told_and_does_not_stop_the_answer() -> None:
    study, table = make_table("supported")
    found = analyse(study, table)
    forgot = next(row.value for row in found.measures
                  if (row.measure, row.arm, row.task, row.metric) == ("forgetting", "lora-r32", "old", "nats-per-token"))
    limited = recommended("supported", max_forgetting=forgot)
    assert limited.arm is None and "LoRA r=32" in told_by(limited)  # r=32 is better than r=8, so it would be chosen
    both = recommended("refuted", max_forgetting=forgot)  # r=8 is the best there, whatever becomes of r=32
    assert both.arm == "lora-r8" and "which side it is on is open" in told_by(both)


def test_two_seeds_cannot_tell_yet_and_say_how_many_are_needed() -> None:
    found = recommended("two-seeds")
    assert found.arm is None and "run at least 3 seeds" in told_by(found)


def test_a_margin_that_the_cheapest_arm_may_miss_is_told() -> None:
    found = recommended("inconclusive")
    assert found.arm == "lora-r8"
    assert "That may be more than the margin of 0.05 nats/token; " in told_by(found)


@pytest.mark.parametrize(("seed_variance", "expected"), [("own", "within"), ("cautious", "open")])
def test_forgetting_is_judged_by_the_variance_that_findings_use(seed_variance: str, expected: str) -> None:
    """Five seeds of LoRA r=32 happen to agree: their own interval ends at 0.439, by all arms' variances at 0.476."""
    study, table = make_table("inconclusive")
    evaluation = study.evaluation.model_copy(update={"seed_variance": seed_variance})
    study = study.model_copy(update={"limits": Limits(max_forgetting=0.45), "seeds": (0, 1, 2, 3, 4),
                                     "evaluation": evaluation})
    trial = Trial(study, table)
    branch = Branch(study.bases[0].name, "lora-r32", study.paths[0].name)
    assert standing(judge(trial, branch)) == expected


def test_a_limit_on_what_is_not_measured_is_not_met() -> None:
    study, table = make_table("supported")
    costs = [row.model_copy(update={"peak_host_bytes": None}) for row in table.costs]
    study = study.model_copy(update={"limits": Limits(max_memory_bytes=10**9)})
    bare = Table(table.scores, table.metrics, table.curves, costs, num_stages=table.num_stages, num_done=table.num_done)
    found = analyse(study, bare).recommendation
    assert found is not None and found.arm is None
    assert "what it needs is not measured, and there is a limit of 1.00 GB" in told_by(found)


def test_a_limit_on_forgetting_without_old_text() -> None:
    study, table = make_table("supported")
    tasks = (study.tasks[0], study.tasks[1].model_copy(update={"role": "learn"}))
    study = study.model_copy(update={"limits": Limits(max_forgetting=0.1), "tasks": tasks,
                                     "sequences": (Sequence(name="new", tasks=("new",)),)})
    found = analyse(study, table).recommendation
    assert found is not None and found.arm is None and "no old text to measure it on" in told_by(found)


def test_the_parameters_of_an_earlier_phase_count() -> None:
    study, table = make_table("supported")
    assert "trains 6.90 M parameters" in recommended("supported").text  # one phase: no "up to"
    both = study.model_copy(update={"sequences": (Sequence(name="new", tasks=("old", "new")),)})
    early = [row.model_copy(update={"task": "old", "params_trainable": 5_000_000}) for row in table.costs]
    costly = Table(table.scores, table.metrics, table.curves, [*table.costs, *early], num_stages=1, num_done=1)
    limited = both.model_copy(update={"limits": Limits(max_trainable=1_000_000)})
    judged = judge(Trial(limited, costly), Branch("tiny", "lora-r8", "new"))
    assert standing(judged) == "beyond" and "it trains 5.00 M parameters; the limit is 1.00 M" in judged[0].why


def test_an_arm_worse_than_the_base_is_said_to_be() -> None:
    """Every score of the base is put below those of the arms: nothing was learned."""
    study, table = make_table("supported")
    scores = [replace(row, statistics=row.statistics * [0.5, *[1.0] * (row.statistics.shape[1] - 1)])
              if row.cell.arm == "base" and row.statistics is not None else row for row in table.scores]
    found = analyse(study, Table(scores, table.metrics, table.curves, table.costs, num_stages=1, num_done=1)).recommendation
    assert found is not None and "Yet it is worse than the untouched base, by " in told_by(found)
    assert "untouched base" not in recommended("supported").text


def test_what_is_forgotten_is_told_where_no_limit_weighs_it() -> None:
    assert "Forgetting was not weighed, since no limit was stated: it forgets 0.59" in recommended("supported").text
    assert "not weighed" not in recommended("supported", max_forgetting=5.0).text


def test_an_arm_that_failed_is_left_out_by_what_validation_saw_of_it() -> None:
    """Tested at chosen rates only, it has no test rows."""
    study, table = make_table("oom-arm")
    study = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"rates": "chosen"})})
    scores = [row for row in table.scores if row.outcome is Outcome.OK or row.split == "val"]
    found = analyse(study, Table(scores, table.metrics, table.curves, table.costs, num_stages=1, num_done=1)).recommendation
    assert found is not None and found.text.endswith("Not considered: LoRA r=32 (OOM).")


def test_whichever_of_the_open_arms_turn_out_to_be_within_is_tried() -> None:
    assert set(_some_of(["a", "b"])) == {("a",), ("b",), ("a", "b")}
    many = [*_some_of(list("abcdefgh"))]
    assert tuple("abcdefgh") in many and ("c",) in many and tuple("abdefgh") in many and len(many) == 8 + 8 + 1


def test_an_arm_without_an_interval_is_not_said_to_beat_the_base() -> None:
    found = recommended("supported", seeds=2, max_trainable=100_000)
    assert found.arm == "lora-r8"
    assert re.search(r"Whether it beats the untouched base is open: its score is .* better than the base's \(2 seeds: no interval", found.text)
