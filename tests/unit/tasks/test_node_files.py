"""JavaScript from Node's wheel: the same files from the environment and from the wheel, and clear errors."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import sys_tags

from finetrial.errors import DataError
from finetrial.fingerprint import file_digest
from finetrial.tasks.sources import node_files
from finetrial.tasks.sources.node_files import LockedNode, is_usable, javascript_files, package_of
from finetrial.tasks.sources.wheels import content_digest

LIBRARY = {"fs": "const fs = 1;\n", "internal/deps/v8/tools/x": "const v8 = 2;\n"}
NODE = f"#!/bin/sh\ncat <<'END'\n{json.dumps(LIBRARY)}\nEND\n".replace("cat", "/bin/cat").encode()
MODULES = {"npm/lib/a.js": b"const a = 1;\n", "npm/node_modules/@npmcli/git/lib/b.cjs": b"const b = 1;\n",
           "npm/test/c.js": b"const c = 1;\n"}
FILES = {**MODULES, **{f"node/lib/{name}.js": text.encode() for name, text in LIBRARY.items()}}


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LockedNode:
    """A wheel in the cache whose Node is a shell script, and the lock that names it."""
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path))
    path = tmp_path / "wheels" / f"tinynode-1.0-py3-none-{next(sys_tags()).platform}.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MODULES.items():
            archive.writestr(node_files.MODULES + name, data)
        archive.writestr(node_files.MODULES + "npm/package.json", "{}")
        archive.writestr(node_files.NODE, NODE)
    lock = LockedNode("tinynode", "1.0", content_digest(FILES), "MIT",
                      {"tinynode-1.0-py3-none-aix_7_ppc.whl": "0" * 64, path.name: file_digest(path)})
    monkeypatch.setattr(node_files, "locked_node", lambda: lock)
    return lock


def _relock(monkeypatch: pytest.MonkeyPatch, lock: LockedNode, **changes: Any) -> None:
    changed = dataclasses.replace(lock, **changes)
    monkeypatch.setattr(node_files, "locked_node", lambda: changed)


@pytest.mark.usefixtures("lock")
def test_from_the_wheel(tmp_path: Path) -> None:
    found = list(javascript_files())
    assert [(file.package, file.path) for file in found] == [
        ("node", "node/lib/fs.js"), ("npm", "npm/lib/a.js"), ("@npmcli/git", "npm/node_modules/@npmcli/git/lib/b.cjs")]
    assert found[0].data == LIBRARY["fs"].encode()
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]  # the unpacked binary is gone


def test_from_the_environment(lock: LockedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    contents = {**{node_files.MODULES + name: data for name, data in MODULES.items()}, node_files.NODE: NODE}
    for name, data in contents.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)
    (site / node_files.NODE).chmod(0o755)
    information = site / "tinynode-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tinynode\nVersion: 1.0\n")
    (information / "RECORD").write_text("".join(f"{name},,\n" for name in contents))
    monkeypatch.syspath_prepend(str(site))
    _relock(monkeypatch, lock, wheels={})
    assert len(list(javascript_files())) == 3


def test_other_javascript_is_refused(lock: LockedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    _relock(monkeypatch, lock, javascript_digest="0" * 64)
    with pytest.raises(DataError, match="has digest"):
        list(javascript_files())


def test_no_wheel_for_this_platform(lock: LockedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    _relock(monkeypatch, lock, wheels={"tinynode-1.0-py3-none-aix_7_ppc.whl": "0" * 64})
    with pytest.raises(DataError, match="no wheel for this platform") as caught:
        list(javascript_files())
    assert "aix_7_ppc" in caught.value.mend


def test_offline(lock: LockedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "wheels").iterdir():
        path.unlink()
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "ERROR: no\n"))
    with pytest.raises(DataError, match="pip could not fetch it") as caught:
        list(javascript_files())
    assert caught.value.mend.endswith("tinynode==1.0")


def test_a_damaged_wheel_is_not_run(lock: LockedNode, tmp_path: Path) -> None:
    path = tmp_path / "wheels" / list(lock.wheels)[1]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"javascript\.lock says"):
        list(javascript_files())


def test_a_node_that_does_not_run(tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\nexit 3\n")
    node.chmod(0o755)
    with pytest.raises(DataError, match="Node does not run here"):
        node_files._node_library(node)


@pytest.mark.parametrize(("path", "data", "usable"), [
    ("npm/lib/x.js", b"const x = 1;\n", True), ("npm/lib/latest/x.js", b"const x = 1;\n", True),
    ("npm/test/x.js", b"const x = 1;\n", False), ("npm/lib/x.min.js", b"const x = 1;\n", False),
    ("npm/lib/x.js", b"", False), ("npm/lib/x.js", b"x" * 500 + b"\n", False),
    ("npm/lib/x.js", b"const x = 1;\n" * 40_000, False)])
def test_usable_files(path: str, data: bytes, usable: bool) -> None:
    assert is_usable(path, data) == usable


def test_packages() -> None:
    assert package_of("node/lib/internal/fs/x.js") == "node"
    assert package_of("npm/node_modules/a/node_modules/b/x.js") == "b"


def test_the_lock_is_sound() -> None:
    lock = node_files.locked_node()
    assert len(lock.wheels) == 6 and all(lock.version in name for name in lock.wheels)
    assert {len(digest) for digest in (*lock.wheels.values(), lock.javascript_digest)} == {64}
