"""Rules that look at the plan and at the folders of its bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_designs import fair_content, fair_files, fired

from finetrial.methods.base import Method
from finetrial.plan.audit import audit_plan
from finetrial.plan.bases import BUNDLED
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.spec import Study
from finetrial.spec.io import parse_study
from finetrial.stages.base import Stage


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fair_files(tmp_path_factory.mktemp("files"))


def planned(folder: Path, **changes: Any) -> tuple[Study, Plan]:
    study = parse_study(fair_content(**changes), "study")
    return study, build(study, relative_to=folder)


def found(study: Study, plan: Plan) -> set[tuple[str, str]]:
    return fired(audit_plan(study, plan))


def arm(name: str, components: Any) -> dict[str, Any]:
    return {"name": name, "components": components, "learning_rates": [1e-3, 3e-3, 1e-2]}


def alone(*arms: dict[str, Any]) -> dict[str, Any]:
    return {"arms": list(arms), "controls": None, "hypotheses": []}


def copied_base(folder: Path) -> Path:
    folder.mkdir()
    for path in (BUNDLED / "tiny-gpt").iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_a_base_that_holds_an_adapter(files: Path, tmp_path: Path) -> None:
    base = copied_base(tmp_path / "wrapped")
    changes = {"bases": [{"name": "mine", "source": str(base)}]}
    assert found(*planned(files, **changes)) == set()
    (base / "adapter_config.json").write_text("{}")
    assert found(*planned(files, **changes)) == {("double-wrapping", "threat")}


def test_adapter_weights_saved_with_the_base(files: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    base = copied_base(tmp_path / "wrapped")
    save_file({"transformer.h.0.attn.lora_A.weight": np.zeros((2, 2), np.float32)}, base / "more.safetensors")
    changes = {"bases": [{"name": "mine", "source": str(base)}]}
    assert found(*planned(files, **changes)) == {("double-wrapping", "threat")}
    save_file({"transformer.h.0.attn.c_attn.weight": np.zeros((2, 2), np.float32)}, base / "more.safetensors")
    assert found(*planned(files, **changes)) == set()


@pytest.mark.parametrize(("first", "second", "is_double"), [
    ({}, {"rank": 2}, True), ({"targets": ["c_attn"]}, {"targets": "all-linear"}, True),
    ({"targets": ["c_attn"]}, {"targets": ["c_fc"]}, False)])
def test_two_adapters_on_one_layer(files: Path, first: dict[str, Any], second: dict[str, Any],
                                   is_double: bool) -> None:
    both = arm("both", [{"method": {"kind": "lora", **first}, "slot": "one"},
                        {"method": {"kind": "lora", **second}, "slot": "two"}])
    assert found(*planned(files, **alone(both))) == ({("double-wrapping", "threat")} if is_double else set())


def test_an_adapter_beside_full_fine_tuning_is_no_double(files: Path) -> None:
    beside = arm("beside", [{"method": "lora", "slot": "one"}, {"method": "full", "slot": "two"}])
    assert found(*planned(files, **alone(beside))) == set()


def test_a_name_that_matches_two_kinds_of_layers(files: Path) -> None:
    two, one = (arm("a", [{"method": {"kind": "lora", "targets": targets}}])
                for targets in (["c_attn", "c_proj"], ["c_attn", "attn.c_proj"]))
    study, plan = planned(files, **alone(two))
    assert found(study, plan) == {("target-patterns", "warning")}
    assert "attn and mlp" in audit_plan(study, plan)[0].message
    assert found(*planned(files, **alone(one))) == set()


class Careless(Method):
    """A method of a user's own that checks no name."""

    targets: tuple[str, ...] = ("c_atn",)

    def attach(self, model: Any, streams: Any, slot: str) -> Any:
        raise NotImplementedError


def test_a_name_that_matches_nothing_where_the_method_does_not_check(files: Path) -> None:
    study, plan = planned(files)

    def with_targets(*targets: str) -> Study:
        careless = study.arms[1].components["*"][0].model_copy(update={"method": Careless(targets=targets)})
        return study.model_copy(update={"arms": (study.arms[0], study.arms[1].model_copy(
            update={"components": {"*": (careless,)}}))})

    assert found(with_targets("c_atn"), plan) == {("target-patterns", "threat")}
    assert found(with_targets("c_attn"), plan) == set()


def generating(plan: Plan, decoding: dict[str, Any] | None) -> Plan:
    spec = {"split": "test"} if decoding is None else {"split": "test", "decoding": decoding}
    return replace(plan, stages=[*plan.stages, Stage("generate/x", "generate", 1, spec)])


@pytest.mark.parametrize(("decoding", "seeds", "is_noise"), [
    ({"temperature": 0.7, "num_samples": 1}, 1, True), ({"do_sample": True, "temperature": 0.7}, 2, True),
    ({"temperature": 0.7, "num_samples": 10}, 1, False), ({"temperature": 0.7}, 3, False),
    ({"do_sample": False}, 1, False), (None, 1, False)])
def test_one_sample_and_few_seeds(files: Path, decoding: dict[str, Any] | None, seeds: int, is_noise: bool) -> None:
    study, plan = planned(files, seeds=seeds)
    assert found(study, generating(plan, decoding)) == ({("sampling-noise", "threat")} if is_noise else set())


def test_profiles_that_share_a_process(files: Path) -> None:
    study, plan = planned(files)
    shared = replace(plan, stages=[replace(stage, group="one") if stage.kind == "profile" else stage
                                   for stage in plan.stages])
    assert found(study, plan) == set()
    assert found(study, shared) == {("shared-process-memory", "threat")}
