"""A trial of two tasks in order on a tiny model: carry, routing, outputs, floors, to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tiny_study import save_tiny_base, write_pairs, write_text

import finetrial
from finetrial.records.results import Results
from finetrial.run.options import RunOptions
from finetrial.run.trial import run_study
from finetrial.spec.io import parse_study
from finetrial.stages.adapted import read_state


def content(folder: Path) -> dict[str, Any]:
    save_tiny_base(folder / "model")
    write_pairs(folder / "a.jsonl", step=7, rows=120, seed=0)
    write_pairs(folder / "b.jsonl", step=11, rows=120, seed=1)
    write_text(folder / "old.txt", step=3, documents=100, seed=2)
    use = {"num_val": 3, "num_test": 6, "max_new_tokens": 5, "metrics": ["chrf", "exact-match"]}
    lora = {"kind": "lora", "rank": 2}
    return {
        "name": "two", "size": "small", "question": "What is left of a?", "bases": [{"name": "mine", "source": "./model"}],
        "tasks": [{"name": "a", "task": {"kind": "prompt-completion", "path": "a.jsonl"}, **use},
                  {"name": "b", "task": {"kind": "prompt-completion", "path": "b.jsonl"}, **use},
                  {"name": "old", "task": {"kind": "text", "path": "old.txt"}, "role": "outside", "num_val": 3,
                   "num_test": 4}],
        "sequences": [{"name": "a-b", "tasks": ["a", "b"]}],
        "arms": [{"name": "fresh", "components": [{"method": lora, "carry": "fresh"}], "learning_rates": [0.01, 0.1]},
                 {"name": "merged", "components": {"a": lora, "b": [{"method": "full", "carry": "merge"}]},
                  "learning_rates": [0.1], "learning_rates_for": {"b": [0.01]}},
                 {"name": "layer", "components": {"a": [{"method": "layer", "slot": "block"}, lora],
                                                  "b": [{"method": "layer", "slot": "block", "carry": "freeze"},
                                                        {"method": lora, "carry": "stack"}]},
                  "learning_rates": [0.1]}],
        "controls": {"reference": "merged"},
        "accept_threats": ["unequal-tuning", "method-tied-to-position"],
        "evaluation": {"routings": ["latest", "oracle"]},
        "hypotheses": [{"name": "H1", "statement": "Fresh forgets less than full after LoRA.",
                        "contrast": {"left": "fresh", "right": "merged", "quantity": "forgetting", "task": "a",
                                     "expect": "less"}},
                       {"name": "H2", "statement": "Full beats copying.",
                        "contrast": {"left": "merged", "right": "floor:copy", "task": "b", "metric": "chrf",
                                     "expect": "greater"}}],
        "training": {"budget": "4 steps", "sequence_length": 32, "batch_sequences": 4, "evaluations": 1},
        "factors": ["method", "rank", "path"], "seeds": 2}


def test_a_trial_of_two_tasks(tmp_path: Path) -> None:
    """One run, looked at from four sides: it is the slowest test that there is."""
    study = parse_study(content(tmp_path), "two")
    trial = run_study(study, RunOptions(runs=tmp_path / "runs", view=False, figures=False), relative_to=tmp_path)
    every_stage_is_done_and_every_score_is_there(trial)
    floors_stand_beside_what_is_written(trial)
    the_old_adapter_answers_unchanged_under_oracle(trial)
    artifacts_say_what_the_model_holds(trial)
    every_task_answers_on_one_base(trial)
    a_second_run_computes_nothing(trial)


def every_stage_is_done_and_every_score_is_there(trial: Any) -> None:
    results: Results = trial.results
    assert results.status == "complete"
    phases = {(row.sequence, row.phase) for row in results.scores if row.arm == "fresh" and row.step is None}
    assert {("a-b", 1), ("a-b", 2)} <= phases
    chrf = [row for row in results.scores if row.metric == "chrf"]
    assert {row.arm for row in chrf} >= {"base", "fresh", "merged", "layer", "merged-aa", "floor:copy",
                                         "floor:constant"}
    assert all(0 <= row.value <= 1 and row.n == 6 for row in chrf if row.value is not None)
    assert {finding.hypothesis for finding in results.findings if finding.estimate is not None} == {"H1", "H2"}


def floors_stand_beside_what_is_written(trial: Any) -> None:
    """In the outputs side by side and in their spread; items are ranked by the difference that a hypothesis asks for."""
    results: Results = trial.results
    for shown in results.examples:
        answers = {one.arm: one for one in shown.written}
        assert answers["floor:copy"].output == shown.input and {"base", "floor:constant", "merged"} <= answers.keys()
        assert all(answers[name].score is not None for name in ("base", "floor:copy", "floor:constant"))
    assert {(shown.left, shown.right) for shown in results.examples if (shown.sequence, shown.task) == ("a-b", "b")} == {
        ("merged", "floor:copy")}
    spread = {(row.task, row.metric) for row in results.distributions if row.arm == "floor:copy"}
    assert spread == {(row.task, row.metric) for row in results.distributions if row.arm == "base"} != set()


def the_old_adapter_answers_unchanged_under_oracle(trial: Any) -> None:
    """Zero by construction: the adapter of task a is the same after phase 2, byte for byte, and so are its answers."""
    def losses(arm: str, phase: int, routing: str) -> list[float]:
        table = pq.read_table(trial.folder / "records.parquet").to_pylist()
        found = [row for row in table if (row["arm"], row["phase"], row["task"], row["split"], row["routing"],
                                          row["sequence"], row["metric"]) ==
                 (arm, phase, "a", "test", routing, "a-b", "nats-per-token")]
        return sorted({row["value"] for row in found if row["seed"] == 0})

    assert set(losses("fresh", 2, "oracle")) <= set(losses("fresh", 1, "latest"))
    zero = [row for row in trial.results.measures if (row.measure, row.arm, row.phase, row.task, row.routing) ==
            ("forgetting", "fresh", 2, "a", "oracle")]
    assert zero and all(row.by_construction and row.value == 0 for row in zero)
    assert not set(losses("fresh", 2, "latest")) <= set(losses("fresh", 1, "latest"))
    assert not set(losses("merged", 2, "oracle")) <= set(losses("merged", 1, "latest"))


def artifacts_say_what_the_model_holds(trial: Any) -> None:
    state = {arm: read_state(next((trial.folder / "artifacts").glob(f"mine/{arm}/a-b/seed-0/phase-2-b")))
             for arm in ("fresh", "merged", "layer")}
    places = {arm: [(instance.name, instance.place.value) for instance in found.instances]
              for arm, found in state.items()}
    assert places == {
        "fresh": [("main@1", "unloaded"), ("main@2", "newest")],
        "merged": [("main@1", "merged"), ("main@2", "newest")],
        "layer": [("block@1", "newest"), ("main@1", "below"), ("main@2", "newest")]}


def a_second_run_computes_nothing(trial: Any) -> None:
    folder = trial.folder.parent.parent
    study = parse_study(content(folder), "two")
    before = (trial.folder / "results.json").stat().st_mtime_ns
    run_study(study, RunOptions(runs=folder / "runs", view=False, figures=False), relative_to=folder)
    assert (trial.folder / "results.json").stat().st_mtime_ns == before


def every_task_answers_on_one_base(trial: Any) -> None:
    """As docs/python.md does it; each as if its model had been opened alone. What a swap takes is in the costs."""
    import torch

    run = finetrial.open_run(trial.folder)
    parts, ids = run.tasks("fresh"), torch.tensor([[3, 14, 15, 9]])
    assert parts.tasks == ("a", "b")
    for task in ("a", "b", "a"):
        parts.to(task)
        alone, _ = run.model("fresh", task=task)
        with torch.no_grad():
            assert torch.equal(parts.model(ids).logits, alone.eval()(ids).logits)
    assert set(run.costs[run.costs.arm == "fresh"].swap_seconds > 0) == {True}
