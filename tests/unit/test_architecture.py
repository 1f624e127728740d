"""The shape of the package: imports point one way, files stay small, planning needs no torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "finetrial"
MOST_LINES = 300
ALONE = PACKAGE / "sandbox" / "inside"  # runs in an interpreter that cannot see the package: imports itself relatively

# From the ground up. A name is a module or a package right below finetrial; a longer name wins over a shorter one.
TIERS: tuple[tuple[str, ...], ...] = (
    ("cache", "errors", "fingerprint", "catalog", "settings", "streams", "records", "__init__"),
    ("models", "train", "generate", "tasks", "scorers", "sandbox"),
    ("methods", "measures", "spec", "analysis"),
    ("stages", "plan", "report"),
    ("studies",),
    ("run", "models.bundled"),  # making a base trains with a method, so it stands above both
    ("compare", "api"),
    ("cli",),
)
TIER_OF = {name: tier for tier, names in enumerate(TIERS) for name in names}

# methods.base is a contract without torch that the loop types against; methods attach with the help of models.
CONTRACTS = {("train", "methods"), ("models", "methods")}
CONTRACT_MODULES = {"methods.base"}

BLOCKED = """
import sys
for name in ("torch", "transformers", "peft", "accelerate"):
    sys.modules[name] = None
"""


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """`models.bundled.pretrain` -> `models.bundled`, `spec.io` -> `spec`: the longest name that a tier has."""
    steps = module.split(".")
    names = (".".join(steps[:count]) for count in range(len(steps), 0, -1))
    return next(name for name in names if name in TIER_OF)


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module of finetrial that a file imports, in functions too; what only type checkers see is left out."""
    for node in _outside_type_checking(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level and ALONE in path.parents:
                continue
            assert node.level == 0, f"{path}: relative import"
            names = [_imported(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name == "finetrial" or name.startswith("finetrial."):
                yield name.removeprefix("finetrial").removeprefix(".") or "__init__"


def _imported(module: str, name: str) -> str:
    """`from finetrial.models import params` imports finetrial.models.params."""
    path = PACKAGE.parent.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.with_suffix(".py").is_file() or path.is_dir() else module


def _outside_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _outside_type_checking(node)


def run_python(program: str) -> None:
    """In a process of its own; its complaint is the test's."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
    assert done.returncode == 0, done.stderr


def test_every_part_of_the_package_has_a_tier():
    parts = {path.stem if path.parent == PACKAGE else path.relative_to(PACKAGE).parts[0] for path in source_files()}
    assert parts <= set(TIER_OF), f"add to TIERS: {sorted(parts - set(TIER_OF))}"


def test_imports_point_down():
    upward = {}
    for path in source_files():
        part = part_of(module_of(path))
        found = {module for module in imports_of(path) if TIER_OF[part_of(module)] > TIER_OF[part]
                 and not ((part, part_of(module)) in CONTRACTS and module in CONTRACT_MODULES)}
        if found:
            upward[module_of(path)] = sorted(found)
    assert not upward, "these import from above"


def test_no_cycles_between_packages():
    """Within a tier packages may import each other, but not in a circle."""
    needs: dict[str, set[str]] = {}
    for path in source_files():
        part = part_of(module_of(path))
        found = {part_of(module) for module in imports_of(path) if module not in CONTRACT_MODULES}
        needs.setdefault(part, set()).update(found - {part})

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for part in needs.get(waiting.pop(), set()) - seen:
                seen.add(part)
                waiting.append(part)
        return seen

    circles = sorted(part for part in needs if part in reached(part))
    assert not circles, f"these packages import each other in a circle: {circles}; {needs}"


def test_files_have_one_idea():
    lengths = {module_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()}
    too_long = {module: length for module, length in lengths.items() if length > MOST_LINES}
    assert not too_long, f"more than {MOST_LINES} lines; split them"


def test_only_models_training_and_generation_need_torch():
    """Everything else can be imported with torch blocked."""
    modules = [module_of(path) for path in source_files() if path.stem != "__main__"]
    light = [f"finetrial.{module}".removesuffix(".__init__") for module in modules
             if part_of(module) not in ("models", "models.bundled", "train", "generate")]
    run_python(BLOCKED + f"import importlib\nfor name in {light}: importlib.import_module(name)")


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_built_in_study_is_planned_and_shown_without_torch(thorough):
    """At every scale and size: compiled to a plan, audited, keyed and printed."""
    run_python(BLOCKED + f"""
from finetrial.cli import main
from finetrial.cli.study import built_in_studies
for name, study in built_in_studies().items():
    for scale, sizes in study.sizes.items():
        for size in sizes:
            if (size == "thorough") == {thorough}:
                code = main(["plan", name, "--scale", scale, "--size", size])
                assert code == 0, (name, scale, size)
""")


def test_a_plan_imports_no_solvers():
    """What scipy takes to import is more than a plan takes to make."""
    run_python("""
import sys
from finetrial.cli import main
assert main(["plan", "perplexity", "--scale", "full"]) == 0
heavy = {"torch", "transformers", "pandas", "scipy.special", "scipy.optimize", "scipy.stats"} & set(sys.modules)
assert not heavy, heavy
""")


def test_help_imports_nothing_heavy():
    """`finetrial --help` answers at once because it does not import these."""
    run_python("""
import sys
from finetrial.cli import main
assert main(["--help"]) == 0
heavy = {"torch", "transformers", "numpy", "pandas", "scipy", "pyarrow", "pydantic", "yaml", "rich"} & set(sys.modules)
assert not heavy, heavy
""")
