"""A trial whose rates are picked by what the models write for validation items."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_study import save_tiny_base, write_pairs, write_text

from finetrial.errors import SpecError
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.plan.show import render, summarise
from finetrial.records.record import Outcome
from finetrial.run.options import RunOptions
from finetrial.run.trial import run_study
from finetrial.spec.io import parse_study


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """Two tasks of pairs in order; one rate of the second arm diverges."""
    save_tiny_base(tmp_path / "model")
    write_pairs(tmp_path / "a.jsonl", step=7, rows=120, seed=0)
    write_pairs(tmp_path / "b.jsonl", step=11, rows=120, seed=1)
    write_text(tmp_path / "old.txt", step=3, documents=100, seed=2)
    use = {"num_val": 3, "num_test": 6, "max_new_tokens": 5, "metrics": ["chrf", "exact-match"]}
    return {
        "name": "two", "size": "small", "question": "Which rate writes best?", "bases": [{"name": "mine", "source": "./model"}],
        "tasks": [{"name": name, "task": {"kind": "prompt-completion", "path": f"{name}.jsonl"}, **use} for name in ("a", "b")],
        "sequences": [{"name": "a-b", "tasks": ["a", "b"]}],
        "arms": [{"name": "fresh", "components": [{"method": {"kind": "lora", "rank": 2}, "carry": "fresh"}],
                  "learning_rates": [0.01, 0.1]},
                 {"name": "full", "components": "full", "learning_rates": [0.01, 1e9]}],
        "evaluation": {"rates": "chosen", "select_by": "metric"},
        "training": {"budget": "4 steps", "sequence_length": 32, "batch_sequences": 4, "evaluations": 1}, "seeds": 3}


def keys(content: dict[str, Any], folder: Path) -> dict[str, str | None]:
    return plan_of(content, folder).keys()


def plan_of(content: dict[str, Any], folder: Path) -> Plan:
    return build(parse_study(content, "two"), relative_to=folder)


def test_the_rate_with_the_best_outputs_is_taken(content: dict[str, Any], tmp_path: Path) -> None:
    content |= {"tasks": content["tasks"][:1], "sequences": [["a"]]}
    trial = run_study(parse_study(content, "one"), RunOptions(runs=tmp_path / "runs", view=False), relative_to=tmp_path)
    results = trial.results
    assert results.status == "complete"
    assert {row.metric for row in results.tuning} == {"chrf"}
    for row in results.tuning:
        if row.arm == "full":  # the run that diverged has no outputs
            assert (row.chosen, row.chosen_by_loss, row.validation[1]) == (0.01, 0.01, None)
        written = {(score.seed, score.point.learning_rate): score.value for score in results.scores if (
            score.arm, score.phase, score.task, score.split, score.metric) == (row.arm, row.phase, row.task, "val", "chrf")}
        means = [None if None in (of := [written[seed, rate] for seed in range(3) if seed != row.seed]) else sum(of) / 2
                 for rate in row.learning_rates]
        assert row.validation == pytest.approx(means)
        best = max(mean for mean in means if mean is not None)
        assert row.chosen == row.chosen_by_primary == row.learning_rates[means.index(best)]
    tested = {(score.arm, score.seed, score.phase, score.point.learning_rate) for score in results.scores
              if score.split == "test" and score.metric == "chrf" and score.seed is not None}
    assert tested == {(row.arm, row.seed, row.phase, row.chosen) for row in results.tuning}
    diverged = [score for score in results.scores if score.outcome is Outcome.DIVERGED and score.split == "val"]
    assert {score.metric for score in diverged} == {"chrf", "exact-match", "nats-per-token"}
    assert "full: validation chrF " in (trial.folder / "analysis.md").read_text()  # what the figure of rates shows, in words
    assert all(row.n % 6 == 0 for row in results.distributions)  # 6 test items, 3 of validation: what is shown was written for test
    page = (trial.folder / "analysis.md").read_text()
    assert "by the loss (rate: seeds)" in page and "by the primary metric where that reads outputs" in page


def test_only_what_chooses_is_added_to_the_plan(content: dict[str, Any], tmp_path: Path) -> None:
    by_metric = keys(content, tmp_path)
    content["evaluation"]["select_by"] = "loss"
    by_loss = keys(content, tmp_path)
    assert {stage: by_metric[stage] for stage in by_loss if not stage.startswith("select/") and by_loss[stage]} == {
        stage: key for stage, key in by_loss.items() if not stage.startswith("select/") and key}
    added = {stage.split("/")[0] for stage in by_metric.keys() - by_loss.keys()}
    assert added == {"generate", "score"} and all("-val" in stage for stage in by_metric.keys() - by_loss.keys())
    selects = [stage for stage in by_loss if stage.startswith("select/") and by_loss[stage]]
    assert selects and all(by_metric[stage] != by_loss[stage] for stage in selects)


def test_the_plan_says_what_chooses(content: dict[str, Any], tmp_path: Path) -> None:
    study = parse_study(content, "two")
    summary = summarise(study, plan_of(content, tmp_path), relative_to=tmp_path)
    console = Console(width=120, record=True, file=StringIO())
    console.print(render(summary))
    assert "a: picked by chrf of what is written for validation items" in console.export_text()
    content["arms"] = [{**arm, "learning_rates": [0.01]} for arm in content["arms"]]
    single = parse_study(content, "two")
    assert summarise(single, plan_of(content, tmp_path), relative_to=tmp_path).selected_by == {}  # nothing is to be picked


def test_more_test_items_choose_nothing_anew(content: dict[str, Any], tmp_path: Path) -> None:
    before = keys(content, tmp_path)
    content["tasks"][0]["num_test"] += 2
    after = keys(content, tmp_path)
    assert all(after[stage] == key for stage, key in before.items() if "-val" in stage or stage.startswith("select/"))


def test_what_has_no_outputs_is_chosen_by_its_loss(content: dict[str, Any], tmp_path: Path) -> None:
    """Text, and a joint phase of tasks with different primary metrics, which no scale has in common."""
    content["tasks"].append({"name": "text", "task": {"kind": "text", "path": "old.txt"}, "num_val": 3, "num_test": 4})
    content["tasks"][1]["metrics"] = ["exact-match"]
    content["sequences"] = [{"name": "all", "tasks": ["text", "a", "a+b"]}]
    content["arms"] = content["arms"][1:]
    study = parse_study(content, "two")
    assert [study.selection_metric(phase) for phase in study.paths[0].tasks] == ["nats-per-token", "chrf", "nats-per-token"]
    content["tasks"][1]["metrics"] = ["chrf"]
    assert parse_study(content, "two").selection_metric("a+b") == "chrf"
    selects = [stage for stage in plan_of(content, tmp_path).stages if stage.kind == "select"]
    assert [stage.spec.get("metric", {}).get("kind") for stage in selects if stage.spec["seed"] == 0] == [
        None, "chrf", "chrf"]


def test_what_would_select_nothing_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    """Losses stand first: a setting without an effect would be believed to have one."""
    for use in content["tasks"]:
        use["metrics"] = ["nats-per-token", "chrf"]
    with pytest.raises(SpecError, match=r"select_by is 'metric', and no primary metric .*\(a: nats-per-token, b: nats-per-token\).*name "
                                        "only metrics of outputs"):
        plan_of(content, tmp_path)
    content["tasks"][1]["metrics"] = ["chrf", "exact-match"]
    assert plan_of(content, tmp_path).stages
    content["evaluation"]["select_by"] = "chrf"
    with pytest.raises(SpecError, match=r"evaluation.select_by: 'chrf': write `metric`.*`metrics: \[chrf\]`"):
        parse_study(content, "two")
