"""A hub on this machine with a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path / "finetrial"))
    with LoopbackHub() as server:
        server.point_at_it(monkeypatch, tmp_path / "hub")
        yield server
