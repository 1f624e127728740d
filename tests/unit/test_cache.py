"""What is kept in the cache: made once, whole or not at all, and no obstacle where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetrial.cache import cache_root, kept_text


@pytest.fixture
def made() -> list[str]:
    return []


def make(made: list[str]) -> str:
    made.append("once")
    return "größer\n"


def test_a_text_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]) -> None:
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path / "new" / "cache"))
    assert {kept_text(cache_root() / "a.js", lambda: make(made)) for _ in range(2)} == {"größer\n"}
    assert made == ["once"]
    assert [path.name for path in (tmp_path / "new" / "cache").iterdir()] == ["a.js"]


@pytest.mark.parametrize("name", ["file/cache", "damaged"])
def test_a_cache_that_cannot_be_used_is_no_obstacle(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    made: list[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.js").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path / name))
    assert kept_text(cache_root() / "a.js", lambda: make(made)) == "größer\n"
    assert made == ["once"]
