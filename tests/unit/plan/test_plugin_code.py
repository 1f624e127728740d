"""The code of a user's plug-in is part of the keys of what it computes, and of nothing else."""

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import tiny_content

from finetrial import catalog
from finetrial.errors import UserError
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.spec.arm import read_method
from finetrial.spec.io import read_study
from finetrial.spec.model import plugin_of_spec

FILES = {
    "loud.py": "from finetrial.methods.lora import Lora\nclass Loud(Lora):\n    '''LoRA.'''\n",
    "echo.py": "from finetrial.tasks.prompt_completion import PromptCompletion\nclass Echo(PromptCompletion):\n    '''Pairs.'''\n",
    "same_text.py": "from finetrial.scorers.exact_match import ExactMatch\nclass SameText(ExactMatch):\n    '''Equal.'''\n",
}


def plan_of(folder: Path, edited: str = "", files: Iterable[str] = FILES) -> Plan:
    content = tiny_content(folder)
    for name, code in FILES.items():
        (folder / name).write_text(code + ("# another\n" if name == edited else ""))
    (folder / "pairs.jsonl").write_text("".join(f'{{"prompt": "p{n}", "completion": "c{n}"}}\n' for n in range(90)))
    content["tasks"].append({"name": "pairs", "task": {"kind": "echo", "path": "pairs.jsonl"}, "role": "outside", "num_val": 3,
                             "num_test": 3, "max_new_tokens": 8, "metrics": ["same-text"]})
    content["arms"].append({"name": "loud", "components": "loud:rank=2", "learning_rates": [0.1]})
    (folder / "study.yaml").write_text(yaml.safe_dump({**content, "plugins": list(files)}))
    return build(read_study(folder / "study.yaml"), relative_to=folder)


def changed(before: Plan, after: Plan) -> set[str]:
    keys = after.keys()
    return {stage for stage, key in before.keys().items() if keys[stage] != key}


@pytest.mark.parametrize(("edited", "own"), [("loud.py", "train/"), ("echo.py", "data/"), ("same_text.py", "score/")])
def test_an_edited_file_changes_the_keys_of_what_it_computes(tmp_path: Path, edited: str, own: str) -> None:
    before = plan_of(tmp_path)
    stages = changed(before, plan_of(tmp_path, edited))
    touched = [stage for stage in stages if stage.startswith(own)]
    assert touched and all(("/loud/" if own == "train/" else "pairs") in stage for stage in touched), stages
    assert changed(before, plan_of(tmp_path)) == set()


def test_specs_of_built_ins_hold_no_code() -> None:
    assert catalog.code_of(catalog.find("method", "lora")) == {"version": 1}


def test_a_scorer_is_told_by_the_packages_that_compute_for_it() -> None:
    chrf = catalog.code_of(catalog.find("scorer", "chrf"))
    assert chrf == {"version": 1, "packages": {"sacrebleu": version("sacrebleu")}}
    plugin_of_spec("scorer", {"kind": "chrf", **chrf})
    with pytest.raises(UserError, match=r"sacrebleu is .* here, and the study was planned with 1\.0"):
        plugin_of_spec("scorer", {"kind": "chrf", **chrf, "packages": {"sacrebleu": "1.0"}})


def test_a_method_whose_file_has_changed_since_is_refused(tmp_path: Path) -> None:
    method = next(stage for stage in plan_of(tmp_path).stages if stage.id.startswith("train/") and "/loud/" in stage.id)
    written: dict[str, Any] = method.spec["components"][0]["method"]
    assert read_method(written).kind == "loud"
    plan_of(tmp_path, "loud.py")
    with pytest.raises(UserError, match="the file of the method 'loud' has changed since the study was planned"):
        read_method(written)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lora.py").write_text(FILES["loud.py"])
    with pytest.raises(UserError, match="would take the place of the method 'lora'"):
        catalog.add_file(tmp_path / "lora.py")
    assert not catalog.code_digest(catalog.find("method", "lora"))


def test_two_files_of_one_name_in_one_study_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "loud.py").write_text(FILES["loud.py"])
    with pytest.raises(UserError, match="are both the method 'loud'"):
        catalog.add_files([tmp_path / "a/loud.py", tmp_path / "b/loud.py"])
    catalog.add_files([tmp_path / "a/loud.py", tmp_path / "a/../a/loud.py"])
