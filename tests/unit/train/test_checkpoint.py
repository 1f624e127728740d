from pathlib import Path

import pytest
import torch

from finetrial.train import checkpoint


def test_round_trip_keeps_the_newest_only(tmp_path: Path) -> None:
    for step in (3, 6):
        checkpoint.save(tmp_path, step, "run", {"step": step, "tensor": torch.full((2,), float(step))})
    state = checkpoint.load(tmp_path, "run")
    assert state is not None and state["step"] == 6 and state["tensor"].tolist() == [6.0, 6.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "step-00000006.pt"]


def test_absent_partial_damaged_or_foreign_is_not_used(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path, "run") is None
    (tmp_path / "step-00000009.pt").write_bytes(b"half")
    assert checkpoint.load(tmp_path, "run") is None
    checkpoint.save(tmp_path, 3, "run", {"step": 3})
    assert checkpoint.load(tmp_path, "another") is None
    (tmp_path / "step-00000006.pt").write_bytes(b"half")  # killed before the pointer was replaced
    state = checkpoint.load(tmp_path, "run")
    assert state is not None and state["step"] == 3
    path = tmp_path / "step-00000003.pt"
    path.write_bytes(path.read_bytes()[:-10])
    assert checkpoint.load(tmp_path, "run") is None


def test_a_save_that_takes_long_is_repeated_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    pace = checkpoint.Pace(60.0)
    for wait_seconds, save_seconds in ((60.0, 1.0), (60.0, 30.0), (600.0, 2.0), (60.0, 0.0)):
        clock[0] += wait_seconds - 0.5
        assert not pace.is_due()
        clock[0] += 1.0
        assert pace.is_due()
        with pace.saving():
            clock[0] += save_seconds


def test_every_step_may_be_saved_whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    pace = checkpoint.Pace(0.0)
    with pace.saving():
        clock[0] += 30.0
    clock[0] += 0.01
    assert pace.is_due()
