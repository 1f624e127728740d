"""The examples of docs/extending.md, used as a reader would: files beside a study that names them."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import save_tiny_base, write_text

from finetrial import catalog
from finetrial.cli.study import Changes, find_study
from finetrial.errors import UserError
from finetrial.plan.audit import audit, audit_plan
from finetrial.plan.build import build
from finetrial.tasks.base import SPLITS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def examples() -> dict[str, str]:
    """File name -> code, from each heading that names a file and the Python block below it."""
    text = (DOCS / "extending.md").read_text()
    return dict(re.findall(r"^## A \w+: `(\w+\.py)`.*?```python\n(.*?)```", text, re.MULTILINE | re.DOTALL))


def test_there_is_one_of_each() -> None:
    assert set(examples()) == {"initials.py", "norms.py", "long_loss_share.py", "net_gain.py", "unstated_margin.py", "my_study.py"}


@pytest.mark.slow
def test_every_example_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """A user's folder, the command line, and a finetrial that was built into a wheel and unpacked elsewhere."""
    save_tiny_base(tmp_path / "model")
    write_text(tmp_path / "new.txt", step=7, documents=90)
    write_text(tmp_path / "old.txt", step=3, documents=90, seed=1)
    for name, code in examples().items():
        (tmp_path / name).write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
    asked = ["run", "my_study.py", "--size", "small", "--accept-threat", "held-out-rows-in-training"]  # words made by a rule
    done = subprocess.run([sys.executable, "-P", "-m", "finetrial.cli", *asked], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "my-study-embedded-small"
    results = json.loads((folder / "results.json").read_text())
    assert results["status"] == "complete"
    arms = {score["arm"] for score in results["scores"] if score["metric"] == "long-loss-share"}
    assert {"norms", "full", "base"} <= arms
    assert any(row["measure"] == "net-gain" and row["low"] is not None for row in results["measures"])
    assert results["findings"][0]["verdict"] in ("SUPPORTED", "REFUTED", "INCONCLUSIVE")
    assert "H1 states no margin" in (folder / "report.html").read_text()
    assert (folder / "artifacts" / "mine" / "norms" / "new" / "seed-0" / "phase-1-new" / "main" / "norms.safetensors").is_file()


@pytest.mark.parametrize("path", sorted((DOCS / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_file_can_be_planned(path: Path) -> None:
    found = find_study(str(path), Changes())
    plan = build(found.study, relative_to=found.relative_to, fetch=False)
    assert plan.stages and all(row.severity != "threat" for row in (*audit(found.study), *audit_plan(found.study, plan)))


@pytest.fixture
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    pytest.importorskip("setuptools")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                    "--wheel-dir", built, source], check=True)
    (found,) = built.glob("*.whl")
    with zipfile.ZipFile(found) as packed:
        packed.extractall(built / "site")
    return built / "site"


@pytest.mark.parametrize(("change", "told"), [
    (lambda code: "class Nothing: pass", "defines no plug-in class"),
    (lambda code: "from finetrial.plan.audit.base import Rule\nclass Mine(Rule): pass", "defines a rule, not a study"),
    (lambda code: code + "\nclass (", r"my_study.py, line \d+: SyntaxError"),
    (lambda code: code.replace("import Budget", "import Budgets"), r"my_study.py, line \d+: ImportError: .*Budgets"),
    (lambda code: code.replace("small = size", "small = sise"), r"my_study.py, line \d+: NameError: .*sise"),
    (lambda code: code.replace('components="full"', 'components="fulll"'), "unknown method 'fulll'.*full"),
    (lambda code: code.replace('"norms.py"', '"norm.py"'), "norm.py does not exist")])
def test_a_file_that_makes_no_study(change: Callable[[str], str], told: str, tmp_path: Path) -> None:
    for name, code in examples().items():
        (tmp_path / name).write_text(change(code) if name == "my_study.py" else code)
    with pytest.raises(UserError) as caught:
        find_study(str(tmp_path / "my_study.py"))
    assert re.search(told, str(caught.value), re.DOTALL)


def test_a_study_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study file .*mine.py does not exist"):
        find_study(str(tmp_path / "mine.py"))


def test_plug_ins_of_the_class_and_of_the_study_it_makes(tmp_path: Path) -> None:
    for name, code in examples().items():
        (tmp_path / name).write_text(code)
    code = examples()["my_study.py"].replace('"net_gain.py", "unstated_margin.py")', '"net_gain.py")').replace(
        'name="my-study",', 'name="my-study", plugins=("unstated_margin.py", "norms.py"),')
    (tmp_path / "my_study.py").write_text(code)
    assert find_study(str(tmp_path / "my_study.py")).study.plugins == (
        "initials.py", "norms.py", "long_loss_share.py", "net_gain.py", "unstated_margin.py")


def test_a_study_in_code_has_the_sizes_that_it_says(tmp_path: Path) -> None:
    for name, code in examples().items():
        (tmp_path / name).write_text(code)
    found = find_study(str(tmp_path / "my_study.py"))
    assert (found.study.size, found.relative_to) == ("standard", tmp_path)
    with pytest.raises(UserError, match="unknown size .*large.*small"):
        find_study(str(tmp_path / "my_study.py"), Changes(size="large"))


@pytest.mark.parametrize("name", ["pydoc-chat", "python-text", "text", "prompt-completion"])
def test_tasks_are_in_the_catalog(name: str) -> None:
    assert name in catalog.names("task") and len(SPLITS) == 4
