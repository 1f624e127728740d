"""`make gpu-check` on a CPU: every line runs. What its figures are only a GPU can say."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetrial.run import local, trial

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`bench/gpu`, imported as the script does it; a function that gives a module of it."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield lambda name: importlib.import_module(f"gpu.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gpu", "against_trl")]:
        del sys.modules[name]


def test_the_check_of_a_trial_starts_workers_in_both_ways(checks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it puts in the runner's place is what the runner asks for its workers."""
    made = []

    class NoPool:
        def __init__(self, log: Path, *, preload: Any, fork: bool | None = None, check: Any = None) -> None:
            made.append(fork)

        def settle(self) -> None:
            pass

        def close(self) -> None:
            pass

    def no_study(study: Any, options: Any) -> Any:
        with local.KeptPool() as executor, executor(SimpleNamespace(logs=tmp_path, preload=())):  # type: ignore[arg-type]
            return SimpleNamespace(folder=tmp_path, results=SimpleNamespace(
                status="complete", costs=[], scores=[SimpleNamespace(outcome="OK")]))

    monkeypatch.setattr(local, "LocalPool", NoPool)
    monkeypatch.setattr(trial, "run_study", no_study)
    setting = checks("setting").Setting("cpu", True, tmp_path)
    assert all(finding.passed for finding in checks("trial").trials(setting))
    assert made == [True, False, None]


@pytest.mark.slow
def test_the_check_of_a_trial_runs() -> None:
    ran = subprocess.run([sys.executable, BENCH / "gpu_check.py", "--device", "cpu", "--dry", "--only", "trial"],
                         check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0 and "3 ok, 0 failed" in ran.stdout, ran.stdout + ran.stderr
