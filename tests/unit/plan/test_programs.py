"""Stages that run programs, and tasks of which there are only test rows, in the plan."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import content_with_problems

from finetrial.errors import SpecError, UserError
from finetrial.plan import specs
from finetrial.plan.audit import audit_plan
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.plan.specs import metrics
from finetrial.sandbox import SandboxError, probe
from finetrial.sandbox.layers import Layers
from finetrial.spec.io import parse_study

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SAMPLING = {"num_samples": 3, "temperature": 0.8, "pass_at": 2}


def plan_of(content: dict[str, Any], folder: Path) -> Plan:
    return build(parse_study(content, "study"), relative_to=folder)


def stages_of(plan: Plan, kind: str) -> dict[str, Any]:
    return {stage.id: stage for stage in plan.stages if stage.kind == kind}


def test_programs_are_run_between_generating_and_scoring(tmp_path: Path) -> None:
    plan = plan_of(content_with_problems(tmp_path, sampling=SAMPLING), tmp_path)
    generated, executed, scored = (stages_of(plan, kind) for kind in ("generate", "execute", "score"))
    assert len(generated) == 2 * 3 + 1 and len(executed) == len(scored) == len(generated) + 1  # the floors
    for stage in scored.values():
        program = executed[stage.inputs["executed"]]
        assert {name: source for name, source in stage.inputs.items() if name != "executed"} == program.inputs
        assert program.spec == {"split": "test", "language": "python", "runtime": PYTHON} and not program.group
        assert {"kind": "pass-at-k", "version": 1, "k": 2} in stage.spec["metrics"]


def test_the_interpreter_belongs_to_what_it_runs_and_to_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_with_problems(tmp_path, sampling=SAMPLING)
    before = plan_of(content, tmp_path)
    monkeypatch.setattr(specs, "runtime_version", lambda language: "3.99")
    after = plan_of(content, tmp_path)
    monkeypatch.setattr(specs, "runtime_version", lambda language: None)  # no interpreter: planned, and refused by the run
    assert all("runtime" not in stage.spec for stage in stages_of(plan_of(content, tmp_path), "execute").values())
    changed = {stage for stage, key in before.keys().items() if key != after.keys()[stage]}
    assert changed == {*stages_of(before, "execute"), *stages_of(before, "score")}


def test_every_seed_draws_from_a_stream_of_its_own(tmp_path: Path) -> None:
    content = content_with_problems(tmp_path, sampling=SAMPLING)
    content["controls"] = {"reference": "full"}
    plan = plan_of(content, tmp_path)
    decoding = {stage.id: stage.spec["decoding"] for stage in stages_of(plan, "generate").values()}
    drawn = {"do_sample": True, "num_samples": 3, "temperature": 0.8}
    assert decoding["generate/mine/lora-r2/new/seed-2/phase-1-outputs/problems-test"] == {**drawn, "seed": 2}
    replicate = decoding["generate/mine/full-aa/new/seed-2/phase-1-outputs/problems-test"]
    assert replicate == {**drawn, "seed": 2, "replicate": "aa/"}


def test_greedy_decoding_is_left_out_of_the_key(tmp_path: Path) -> None:
    plan = plan_of(content_with_problems(tmp_path), tmp_path)
    assert not any("decoding" in stage.spec for stage in stages_of(plan, "generate").values())


def test_one_sample_and_few_seeds_are_a_threat(tmp_path: Path) -> None:
    def found(**sampling: Any) -> bool:
        study = parse_study({**content_with_problems(tmp_path, sampling=sampling), "seeds": 2}, "study")
        return any(row.rule == "sampling-noise" for row in audit_plan(study, build(study, relative_to=tmp_path)))

    assert found(temperature=0.8) and not found(temperature=0.8, num_samples=5)


@pytest.mark.parametrize(("sampling", "said"), [
    ({"num_samples": 2, "pass_at": 5}, "pass_at is 5"), ({"temperature": 0}, "greater than 0"),
    ({"num_sample": 2}, "num_samples")])
def test_sampling_that_makes_no_sense(sampling: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=said):
        parse_study(content_with_problems(tmp_path, sampling=sampling), "study")


def test_only_the_splits_that_there_are(tmp_path: Path) -> None:
    plan = plan_of(content_with_problems(tmp_path), tmp_path)
    data = stages_of(plan, "data")
    assert data["data/mine/problems"].spec["splits"] == ["test"]
    assert "splits" not in data["data/mine/new"].spec
    predicted = {name.rpartition("/")[2] for name in stages_of(plan, "predict")}
    assert predicted == {"new-val", "new-test", "problems-test"}


def test_training_on_a_task_without_training_rows(tmp_path: Path) -> None:
    content = content_with_problems(tmp_path, role="learn")
    with pytest.raises(SpecError, match=r"humaneval has test rows only, no train and val rows, and\s+sequence new-problems"):
        plan_of(content, tmp_path)


def test_a_metric_of_programs_on_a_task_without_tests(tmp_path: Path) -> None:
    content = content_with_problems(tmp_path)
    content["tasks"][1]["task"] = {"kind": "prompt-completion", "path": "pairs.jsonl"}
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "w1", "completion": "w2"}')
    with pytest.raises(UserError, match="runs programs with their tests, and the items of the task prompt-completion"):
        plan_of(content, tmp_path)


def content_with_mbpp(folder: Path, metrics: list[str]) -> dict[str, Any]:
    """One problem of mbpp, whose own primary metric runs programs."""
    row = {"task_id": 11, "text": "w1", "code": "w2", "test_list": ["assert True"]}
    (folder / "mbpp.jsonl").write_text(json.dumps(row))
    return content_with_problems(folder, task={"kind": "mbpp", "path": "mbpp.jsonl"}, metrics=metrics)


def test_a_metric_that_the_study_does_not_name_runs_no_programs(tmp_path: Path) -> None:
    plan = plan_of(content_with_mbpp(tmp_path, ["chrf"]), tmp_path)
    assert not stages_of(plan, "execute") and stages_of(plan, "generate")
    assert [[row["kind"] for row in stage.spec["metrics"]] for stage in stages_of(plan, "score").values()] == [["chrf"]] * 8


def test_a_task_whose_metrics_read_no_outputs_generates_none(tmp_path: Path) -> None:
    plan = plan_of(content_with_mbpp(tmp_path, ["perplexity"]), tmp_path)
    assert not any(stages_of(plan, kind) for kind in ("generate", "execute", "score"))
    assert "max_new_tokens" not in stages_of(plan, "data")["data/mine/problems"].spec


@pytest.mark.parametrize(("named", "primary", "every"), [
    (["chrf"], "chrf", ["chrf", "nats-per-token"]),
    (["chrf", "pass-at-k"], "pass-at-k", ["pass-at-k", "chrf", "nats-per-token"]),
    (["chrf", "pass_at_k"], "pass-at-k", ["pass-at-k", "chrf", "nats-per-token"]),
    (["rouge_1"], "rouge-1", ["rouge-1", "nats-per-token"])])
def test_the_metric_that_decides_is_one_that_is_computed(named: list[str], primary: str, every: list[str], tmp_path: Path) -> None:
    use = parse_study(content_with_mbpp(tmp_path, named), "study").task("problems")
    assert use.primary_metric == primary and metrics(use) == every


def test_a_hypothesis_on_a_metric_that_is_not_computed(tmp_path: Path) -> None:
    content = content_with_mbpp(tmp_path, ["chrf"])
    contrast = {"left": "full", "right": "lora-r2", "task": "problems", "metric": "pass-at-k"}
    content["hypotheses"] = [{"name": "H1", "statement": "Full passes more.", "contrast": contrast}]
    with pytest.raises(SpecError, match=r"hypothesis H1: pass-at-k is none of the metrics of problems \(chrf, nats-per-token\)"):
        plan_of(content, tmp_path)
    del contrast["metric"]
    plan_of(content, tmp_path)


def test_a_machine_without_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrial.run import programs

    plan = plan_of(content_with_problems(tmp_path), tmp_path)
    bare: Layers = probe().without("landlock", "namespaces")
    monkeypatch.setattr(programs, "probe", lambda: bare)
    with pytest.raises(SandboxError, match=r"cannot give: no files but its own(.|\n)*--allow-unsandboxed"):
        programs.check_programs(plan.stages, allow_unsandboxed=False)
    programs.check_programs(plan.stages, allow_unsandboxed=True)
    programs.check_programs([], allow_unsandboxed=False)
