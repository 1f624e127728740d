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
    """A function that imports a module of `bench/`, as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
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
                status="complete", costs=[], scores=[SimpleNamespace(outcome="OK", metric="nats-per-token", value=1.0)]))

    monkeypatch.setattr(local, "LocalPool", NoPool)
    monkeypatch.setattr(trial, "run_study", no_study)
    setting = checks("gpu.setting").Setting("cpu", True, tmp_path)
    found = {finding.name: finding.passed for finding in checks("gpu.trial").trials(setting)}
    assert found.pop("trial: stacked") is False  # nothing was recorded
    assert all(found.values()) and made == [True, False, None, None, None]


@pytest.mark.parametrize(("device", "passes"), [("cpu", False), ("cuda", True)])
def test_two_runs_on_cuda_may_differ_as_they_do_there(checks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str,
                                                      passes: bool) -> None:
    setting, saving = checks("gpu.setting"), checks("gpu.saving")
    component = SimpleNamespace(trainable_digest=lambda: "")

    def measured(setting_: Any, *, activation_checkpointing: bool = False, **how: Any) -> Any:
        loss = 3.0 + 5e-4 * activation_checkpointing
        return setting.Run(None, component, metrics=[{"loss": loss}]), 2 - activation_checkpointing

    monkeypatch.setattr(saving, "_measured", measured)
    found = list(saving.checkpoints(setting.Setting(device, True, tmp_path)))
    assert [finding.passed for finding in found] == [passes, passes]


@pytest.mark.parametrize(("device", "visible", "expected"), [
    ("cuda", None, "0"), ("cuda:1", None, "1"), ("cuda:1", "3,5", "5"), ("cuda", "GPU-8f,GPU-77", "GPU-8f"), ("cpu", "3", None)])
def test_either_side_of_the_comparison_with_trl_sees_one_gpu(checks: Any, monkeypatch: pytest.MonkeyPatch, device: str,
                                                             visible: str | None, expected: str | None) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    job = checks("against_trl.job")
    asked = job.Job(job.PACKED, "full", Path("m"), Path("a"), Path("r"), 8, 2, 1e-3, "fp32", 1, device=device)
    found, variables = job.on_one_gpu(asked)
    assert variables.get("CUDA_VISIBLE_DEVICES") == expected and found.device == device.partition(":")[0]


@pytest.mark.slow
def test_the_check_of_a_trial_runs() -> None:
    ran = subprocess.run([sys.executable, BENCH / "gpu_check.py", "--device", "cpu", "--dry", "--only", "trial"],
                         check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0 and "4 ok, 0 failed" in ran.stdout, ran.stdout + ran.stderr
