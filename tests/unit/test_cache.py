"""What is kept in the cache: made once, whole or not at all, and no obstacle where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetrial import fingerprint
from finetrial.cache import cache_root, kept_text
from finetrial.models import files
from finetrial.run import node_cache
from finetrial.run.provenance import environment, known_cpu_capability


@pytest.fixture
def made() -> list[str]:
    return []


def make(made: list[str]) -> str:
    made.append("once")
    return "größer\n"


def test_there_is_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files' digests, what torch says of the CPU and copies of remote stores lie in it too."""
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.delenv(node_cache.FOLDER, raising=False)
    monkeypatch.setattr(fingerprint, "MEMO_BYTES", 1)
    (tmp_path / "config.json").write_text("{}")
    files.digest_of([tmp_path / "config.json"])
    environment("cpu")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {fingerprint.DIGESTS, "cpu-capability.json"}
    assert known_cpu_capability() is not None and not (tmp_path / "elsewhere").exists()
    assert node_cache.cache_folder("s3://bucket").parent == tmp_path / "cache" / "stores"


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
