"""Rules that look at what a run has recorded: synthetic tables with planted faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import sequences
from audit_designs import fair_content, fired, recorded
from synthetic import make_table

from finetrial.analysis.analyse import analyse
from finetrial.analysis.estimate import crossed
from finetrial.analysis.trial import Trial
from finetrial.plan.audit import audit_records, below_floor
from finetrial.plan.bases import BUNDLED
from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.records.results import Cost, Finding, Point, Results, Selection
from finetrial.records.table import CellKey, Items, ItemScores, Metric, Outputs, Table
from finetrial.spec import Study
from finetrial.spec.io import parse_study
from finetrial.stages.base import Stage, StageInput

NOTHING = Plan((), ())
STUDY = parse_study(fair_content(), "study")
EMPTY = Table((), {})
METRIC = Metric("chrf", 1, "", True, lambda sums: sums[..., 0] / sums[..., 1])


def results(**parts: Any) -> Results:
    return Results(study="s", scale="custom", size="standard", status="complete", **parts)


def found(table: Table = EMPTY, plan: Plan = NOTHING, study: Study = STUDY, told: Results | None = None,
          lookup: Callable[[str], StageInput | None] = lambda stage: None) -> set[tuple[str, str]]:
    return fired(audit_records(study, plan, lookup, table, told or results()))


@cache
def finished(case: str) -> tuple[Study, Table, Results]:
    study, table = make_table(case)
    return study, table, analyse(study, table)


@pytest.mark.parametrize("case", ["supported", "refuted", "equivalent", "missing-cells", "oom-arm", "two-seeds",
                                  "base-only", "nothing"])
def test_records_without_a_fault_raise_nothing(case: str) -> None:
    study, table, told = finished(case)
    assert found(table, study=study, told=told) == set()


def chosen(at_edge: bool) -> Selection:
    return Selection(base="b", arm="full", sequence="new", phase=1, task="new", seed=0, at_edge=at_edge,
                     learning_rates=(1e-4, 3e-4, 1e-3), validation=(None, None, None), chosen=1e-3)


def test_a_best_rate_at_the_edge() -> None:
    assert found(told=results(tuning=(chosen(True), chosen(False)))) == {("best-rate-at-edge", "warning")}
    assert found(told=results(tuning=(chosen(False),))) == set()


def test_the_analysis_that_finds_an_edge_is_told() -> None:
    study, table, told = finished("best-at-edge")
    assert ("best-rate-at-edge", "warning") in found(table, study=study, told=told)


def finding(**values: Any) -> Finding:
    fields = {"hypothesis": "H1", "contrast": "full - lora", "verdict": "INCONCLUSIVE", "margin": 0.02,
              "detectable": 0.05, "n_seeds": 3, "n_clusters": 60, "unit": "nats/token"}
    return Finding(**{**fields, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(("values", "is_out"), [
    ({}, True), ({"detectable": 0.019}, False), ({"verdict": "SUPPORTED"}, False), ({"margin": None}, False),
    ({"contrast": ""}, False), ({"unit": "ratio", "margin": 0.1, "detectable": 1.2}, True),
    ({"unit": "ratio", "margin": 0.1, "detectable": 1.05}, False)])
def test_a_margin_out_of_reach(values: dict[str, Any], is_out: bool) -> None:
    told = results(findings=(finding(**values),))
    assert found(told=told) == ({("margin-out-of-reach", "warning")} if is_out else set())


@pytest.mark.parametrize(("values", "text"), [
    ({}, "3 seeds and 60 clusters find differences from 0.05 nats/token on, and the margin is 0.02: add seeds or items, or"),
    ({"n_seeds": None, "n_clusters": None, "n_repeats": 5, "unit": "ratio", "margin": 0.1, "detectable": 1.2},
     "5 repeats of the profile find ratios from 1.2 on, and the margin is 1.1: state a wider margin"),
    ({"n_clusters": None}, "3 seeds find differences from 0.05 nats/token on, and the margin is 0.02: add seeds, or state"),
    ({"n_seeds": None}, "60 clusters find differences from 0.05 nats/token on, and the margin is 0.02: add items, or state")])
def test_a_margin_out_of_reach_says_of_what_there_was_too_little(values: dict[str, Any], text: str) -> None:
    (told,) = audit_records(STUDY, NOTHING, lambda stage: None, EMPTY, results(findings=(finding(**values),)))
    assert text in told.message


def scores(arm: str, values: Sequence[float], *, task: str = "new", items: Items | None = None,
           split: str = "test") -> ItemScores:
    named = items or Items(tuple(f"i{at}" for at in range(len(values))), tuple(f"c{at}" for at in range(len(values))))
    rows = np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)
    return ItemScores(CellKey("b", arm, "new", 0, Point(learning_rate=1e-3)), 1, task, split, "chrf", named, rows)


def table(*rows: ItemScores, **more: Any) -> Table:
    return Table(rows, {"chrf": METRIC}, **more)


def some(count: int = 200, missing: int = 0, level: float = 0.5) -> list[float]:
    values = np.linspace(0.1, level, count)
    values[:missing] = np.nan
    return values.tolist()


def test_items_that_could_not_be_scored() -> None:
    assert found(table(scores("full", some()), scores("lora", some(missing=30)))) == {("scorer-failures", "threat")}
    assert found(table(scores("full", some(missing=5)), scores("lora", some(missing=6)))) == {
        ("scorer-failures", "warning")}
    assert found(table(scores("full", some()), scores("lora", some(missing=1)))) == set()
    assert found(table(scores("full", some(missing=30), split="val"))) == set()  # validation chooses by losses


def test_a_metric_that_says_the_same_of_everything() -> None:
    zero = [0.0] * 60
    same = table(scores("full", zero, task="old"), scores("lora", zero, task="old"))
    assert found(same) == set()  # a hard metric may be 0 everywhere: a note
    elsewhere = table(*same.scores, scores("full", some()), scores("lora", some()))
    assert found(elsewhere) == {("scorer-failures", "warning")}
    one_arm = table(scores("full", zero, task="old"), scores("lora", some(60), task="old"))
    assert found(one_arm) == set()


def test_arms_scored_on_different_items() -> None:
    other = Items(tuple(f"i{at + 5}" for at in range(60)), tuple(f"c{at}" for at in range(60)))
    assert found(table(scores("full", some(60)), scores("lora", some(60), items=other))) == {
        ("unequal-items", "threat")}
    assert found(table(scores("full", some(60)), scores("lora", some(60), items=other, split="val"))) == set()
    assert found(table(scores("full", some(60)), scores("lora", some(60), items=other, task="old"))) == set()


def stages(*names: str) -> Plan:
    return Plan([Stage(name, name.partition("/")[0], 1, {}, exclusive=name.startswith("profile")) for name in names], ())


OLD, NEW = {"host": "a", "cpu": "Xeon 8370C"}, {"host": "b", "cpu": "Xeon 8481C"}


@pytest.mark.parametrize(("full", "lora", "machines"), [
    (OLD, NEW, ("full on Xeon 8370C", "lora on Xeon 8481C")),
    (OLD, {**OLD, "host": "b"}, ()),  # another machine of the same kind
    (OLD, {"host": "a"}, ()), ({"host": "a"}, {"host": "a"}, ()), (OLD, {}, ()),  # as early records are
    (OLD, {"host": "b"}, ("full on Xeon 8370C", "lora on host b")),
    ({"host": "a", "cpu": None}, {"host": "b", "cpu": None}, ("full on host a", "lora on host b"))])
def test_costs_of_different_machines(full: dict[str, Any], lora: dict[str, Any], machines: tuple[str, ...]) -> None:
    plan = replace(stages("profile/full", "profile/lora"), profiles={
        ("b", "full", "new"): ["profile/full"], ("b", "lora", "new"): ["profile/lora"]})
    by_id = {stage.id: stage for stage in plan.stages}

    def lookup(stage: str) -> StageInput:
        return recorded(by_id[stage], execution=full if stage == "profile/full" else lora)

    told = audit_records(STUDY, plan, lookup, EMPTY, results())
    assert fired(told) == ({("mixed-machines", "threat")} if machines else set())
    if machines:
        assert "; ".join(machines) in told[0].message and "finetrial profile" in told[0].message


def test_costs_of_different_bases_are_not_compared() -> None:
    plan = replace(stages("profile/full", "profile/other"), profiles={
        ("b", "full", "new"): ["profile/full"], ("c", "full", "new"): ["profile/other"]})
    by_id = {stage.id: stage for stage in plan.stages}
    assert found(plan=plan, lookup=lambda stage: recorded(
        by_id[stage], execution=OLD if stage == "profile/full" else NEW)) == set()


def test_repeats_of_one_arm_on_different_machines() -> None:
    plan = replace(stages("profile/1", "profile/2", "profile/3"), profiles={
        ("b", "full", "new"): ["profile/1", "profile/2", "profile/3"]})
    by_id = {stage.id: stage for stage in plan.stages}
    made: dict[str, StageInput] = {"profile/1": recorded(by_id["profile/1"], execution=OLD),
                                   "profile/2": recorded(by_id["profile/2"], execution=NEW)}
    assert found(plan=plan, lookup=made.get) == {("mixed-machines", "threat")}
    failed = made["profile/2"].record.model_copy(update={"outcome": Outcome.OOM})
    made["profile/2"] = replace(made["profile/2"], record=failed)
    assert found(plan=plan, lookup=made.get) == set()


def test_profiles_that_began_in_a_used_process() -> None:
    plan = replace(stages("profile/full", "profile/lora"), profiles={
        ("b", "full", "new"): ["profile/full"], ("b", "lora", "new"): ["profile/lora"]})
    by_id = {stage.id: stage for stage in plan.stages}

    def begun(full: int, lora: int) -> Callable[[str], StageInput | None]:
        held = {"profile/full": full << 20, "profile/lora": lora << 20}
        return lambda stage: recorded(by_id[stage], {"baseline_host_bytes": held[stage]})

    assert found(plan=plan, lookup=begun(400, 1_700)) == {("shared-process-memory", "threat")}
    assert found(plan=plan, lookup=begun(400, 430)) == set()


def test_trained_parameters_that_are_not_those_of_the_targets() -> None:
    count = STUDY.arm("lora").components["*"][0].method.count_trainable(_config())  # type: ignore[union-attr]
    assert count is not None
    plan = Plan([Stage("data/tiny-gpt/new", "data", 1, {}, locations={"base": str(BUNDLED / "tiny-gpt")})], (),
                data={("tiny-gpt", "new"): "data/tiny-gpt/new"})

    def trained(number: int) -> Table:
        return Table((), {}, costs=[Cost(base="tiny-gpt", arm="lora", task="new", params_trainable=number)])

    assert found(trained(count), plan) == set()
    assert found(trained(count // 2), plan) == {("target-patterns", "threat")}


def _config() -> dict[str, Any]:
    import json

    config: dict[str, Any] = json.loads((BUNDLED / "tiny-gpt" / "config.json").read_text())
    return config


def outputs(written: Callable[[str], str], wanted: Callable[[str], str] = str.upper, arm: str = "full") -> Outputs:
    inputs = [f"the whole input number {at}" for at in range(20)]
    return Outputs(CellKey("b", arm, "new", 0), 1, "new", Items(tuple(inputs), tuple(inputs)), inputs,
                   [wanted(text) for text in inputs], [written(text) for text in inputs])


def test_outputs_that_begin_with_their_prompt() -> None:
    assert found(Table((), {}, outputs=[outputs(lambda text: f"{text} and an answer")])) == {
        ("prompt-in-scored-text", "threat")}
    assert found(Table((), {}, outputs=[outputs(lambda text: f"an answer to {text}")])) == set()
    assert found(Table((), {}, outputs=[outputs(lambda text: f"{text}s", lambda text: f"{text}s")])) == set()  # plurals
    assert found(Table((), {}, outputs=[outputs(str, arm="floor:copy")])) == set()  # no model repeats anything there


@cache
def floored(best: float) -> set[tuple[str, str]]:
    """What the rules find where copying scores `best` chrF; the best arm scores 0.31."""
    study, table = sequences.make_table()
    scale = best / sequences.FLOORS["floor:copy"]
    scores = [replace(row, statistics=row.statistics * [scale, 1.0])
              if row.cell.arm == "floor:copy" and row.statistics is not None else row for row in table.scores]
    raised = replace(table, scores=scores)
    return found(raised, study=study, told=analyse(study, raised))


def test_arms_that_beat_no_floor() -> None:
    assert ("below-floor", "warning") not in floored(0.16)
    assert ("below-floor", "warning") in floored(0.45)


def test_every_floor_is_asked_for_the_noisy_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.02 above one floor for certain, 0.03 above another give or take 0.07."""
    noise = np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    apart = {"floor:copy": crossed(0.02 + 0.001 * noise), "floor:lead-1": crossed(0.03 + 0.06 * noise)}
    monkeypatch.setattr(below_floor, "_difference", lambda trial, base, path, task, arm, floor: apart[floor])
    study, table = sequences.make_table()
    missed = below_floor._missed(Trial(study, table), study.bases[0].name, study.paths[0], "code", sorted(apart))
    assert missed is not None and missed[1] == "floor:lead-1"
