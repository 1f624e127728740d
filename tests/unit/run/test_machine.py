"""What the machine has, as a driver tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetrial.errors import UserError
from finetrial.run import machine


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """A GPU, and an nvidia-smi that says `answer`."""
    (folder / "gpus" / "0").mkdir(parents=True)
    (folder / "gpus" / "0" / "information").write_text("Model: \t Tesla T4\n")
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setattr(machine, "NVIDIA", folder / "gpus")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_memory_of_every_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "echo 15360; echo 81559")
    assert machine.accelerator_bytes() == [15360 * 2**20, 81559 * 2**20]


def test_without_a_gpu_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "absent")
    assert machine.accelerator_bytes() == []


@pytest.mark.parametrize("answer", ["exit 9", "echo '[N/A]'"])
def test_a_gpu_whose_driver_does_not_answer_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    driver(tmp_path, monkeypatch, answer)
    with pytest.raises(UserError, match="Tesla T4.*16GB|Tesla T4"):
        machine.accelerator_bytes()


@pytest.mark.parametrize(("visible", "asked"), [("1", "--id=1"), ("MIG-7f3a", "noheader,nounits"), (None, "noheader,nounits")])
def test_the_driver_is_asked_about_the_gpus_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             visible: str | None, asked: str) -> None:
    driver(tmp_path, monkeypatch, f'case "$*" in *{asked}) echo 1024;; *) exit 1;; esac')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.accelerator_bytes("free") == [1 << 30]
    assert machine.free_accelerator_bytes("cuda") == (None if visible == "MIG-7f3a" else 1 << 30)


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    driver(tmp_path, monkeypatch, "exit 1")  # not asked
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.accelerator_bytes() == [] and machine.free_accelerator_bytes("cuda") is None


def test_the_device_that_is_taken_as_far_as_it_shows_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine, "torch_version", lambda: "2.9.0")
    monkeypatch.setattr(machine, "DRIVERS", (str(tmp_path / "gpus"),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.usual_device() == "cpu"
    driver(tmp_path, monkeypatch, "exit 0")
    assert machine.usual_device() == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.usual_device() == "cpu"
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "another")  # a driver of another kind
    assert machine.usual_device() is None
    monkeypatch.setattr(machine, "torch_version", lambda: "2.9.0+cpu")
    assert machine.usual_device() == "cpu"


def test_the_name_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPU_INFO", known)
    for content, name in (("processor\t: 0\nmodel name\t: Xeon: 8481C\nflags\t: fma\n", "Xeon: 8481C"), ("processor\t: 0\n", None)):
        known.write_text(content)
        machine.cpu_model.cache_clear()
        assert machine.cpu_model() == name
    machine.cpu_model.cache_clear()
