"""The meter of peak memory, where no GPU is needed to see it."""

from __future__ import annotations

import pytest
import torch

from finetrial.stages import memory


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", ["product on cuda:1", "peak", "baseline"]), ("cpu", ["peak", "baseline"])])
def test_an_accelerator_is_started_before_the_baseline_is_read(device: str, expected: list[str],
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Its context is in the host's memory before and after, so in no difference."""
    seen: list[str] = []
    ones = torch.ones

    def on_device(*shape: int, device: str) -> torch.Tensor:
        seen.append(f"product on {device}")
        return ones(*shape)

    monkeypatch.setattr(torch, "ones", on_device)
    monkeypatch.setattr(memory, "_reset_peak", lambda: seen.append("peak") or True)
    monkeypatch.setattr(memory, "_read", lambda field: seen.append("baseline") or 5)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    memory.MemoryMeter(device)
    assert seen == expected
