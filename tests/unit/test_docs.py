"""The examples of docs/extending.md, used as a reader would: files beside a study that names them."""

import re
from pathlib import Path

import pytest
import yaml
from tiny_study import tiny_content

from finetrial import catalog
from finetrial.run.trial import RunOptions, run_study
from finetrial.spec.io import read_study
from finetrial.tasks.base import SPLITS

DOCS = Path(__file__).parents[2] / "docs"


def examples() -> dict[str, str]:
    """File name -> code, from each heading that names a file and the Python block below it."""
    text = (DOCS / "extending.md").read_text()
    return dict(re.findall(r"^## A \w+: `(\w+\.py)`.*?```python\n(.*?)```", text, re.MULTILINE | re.DOTALL))


def test_there_is_one_of_each() -> None:
    assert set(examples()) == {"initials.py", "norms.py", "long_loss_share.py"}


def test_every_example_runs_in_a_study(tmp_path: Path) -> None:
    content = tiny_content(tmp_path)
    for name, code in examples().items():
        (tmp_path / name).write_text(code)
    content["plugins"] = sorted(examples())
    content["tasks"].append({"name": "letters", "task": "initials:words=4", "role": "outside", "num_val": 4,
                             "num_test": 5, "metrics": ["long-loss-share"]})
    content["arms"].append({"name": "norms", "components": "norms", "learning_rates": [0.01, 0.1]})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    study = read_study(tmp_path / "study.yaml")
    trial = run_study(study, RunOptions(runs=tmp_path / "runs", view=False, figures=False), relative_to=tmp_path)
    assert trial.results.status == "complete"
    arms = {score.arm for score in trial.results.scores if score.metric == "long-loss-share"}
    assert {"norms", "full", "base"} <= arms
    saved = trial.folder / "artifacts" / "mine" / "norms" / "new" / "seed-0" / "phase-1-new" / "main"
    assert (saved / "norms.safetensors").is_file()


@pytest.mark.parametrize("name", ["pydoc-chat", "python-text", "text", "prompt-completion"])
def test_tasks_are_in_the_catalog(name: str) -> None:
    assert name in catalog.names("task") and len(SPLITS) == 4
