"""Locked packages: the same bytes from the environment and from a wheel, and clear errors where there are none."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import packaging.tags
import pytest

from finetrial.errors import DataError
from finetrial.tasks.sources import wheels
from finetrial.tasks.sources.wheels import LockedWheel, SourceFile, lock_wheel, source_files

FILES = {"tinypack/__init__.py": b"x = 1\n", "tinypack/core.py": b"def f():\n    return 1\n",
         "tinypack/tests/test_core.py": b"y = 2\n", "tinypack/made.py": b"# This file is auto-generated\nz = 3\n"}


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LockedWheel:
    """A wheel file `tmp_path/tinypack-1.0-py3-none-any.whl`, its lock entry, and an empty cache."""
    path = tmp_path / "tinypack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
        archive.writestr("tinypack/data.txt", "no source")
    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path / "cache"))
    return LockedWheel(**lock_wheel(path, "MIT"))


def _pip_that_copies(source: Path, calls: list[list[str]]) -> Any:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (Path(command[command.index("--dest") + 1]) / source.name).write_bytes(source.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def _write_wheel(path: Path, tag: str) -> None:
    """A wheel that pip itself accepts."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
        archive.writestr("tinypack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\n")
        archive.writestr("tinypack-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr("tinypack-1.0.dist-info/RECORD", "")


def _install(folder: Path, files: dict[str, bytes], version: str = "1.0") -> None:
    information = folder / f"tinypack-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tinypack\nVersion: {version}\n")
    (information / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_fetches_once_and_yields_usable_files_in_order(locked: LockedWheel, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", _pip_that_copies(tmp_path / locked.filename, calls))
    expected = [SourceFile("tinypack", name, FILES[name]) for name in ("tinypack/__init__.py", "tinypack/core.py")]
    assert list(source_files((locked,))) == expected
    assert list(source_files((locked,))) == expected
    assert len(calls) == 1
    assert calls[0][-1] == "tinypack==1.0" and "--no-deps" in calls[0]


def test_pip_takes_the_locked_wheel_though_it_prefers_another(locked: LockedWheel, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    tag = next(iter(packaging.tags.sys_tags()))
    for name, first in ((locked.filename, "py3-none-any"), (f"tinypack-1.0-{tag}.whl", str(tag))):
        _write_wheel(index / name, first)
    wheel = LockedWheel(**lock_wheel(index / locked.filename, "MIT"))
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}.items():
        monkeypatch.setenv(name, value)
    assert [file.path for file in source_files((wheel,))] == ["tinypack/__init__.py", "tinypack/core.py"]
    assert [path.name for path in (tmp_path / "cache" / "wheels").iterdir()] == [locked.filename]


def test_installed_package_is_used_without_a_fetch(locked: LockedWheel, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path / "site", FILES)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(subprocess, "run", None)
    assert [file.path for file in source_files((locked,))] == ["tinypack/__init__.py", "tinypack/core.py"]


@pytest.mark.parametrize("case", ["changed", "missing", "other version"])
def test_another_installed_content_is_not_used(case: str, locked: LockedWheel, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**FILES, "tinypack/core.py": b"patched = True\n"} if case == "changed" else FILES
    _install(tmp_path / "site", files, "2.0" if case == "other version" else "1.0")
    if case == "missing":
        (tmp_path / "site" / "tinypack" / "core.py").unlink()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", _pip_that_copies(tmp_path / locked.filename, calls))
    assert [file.data for file in source_files((locked,))][1] == FILES["tinypack/core.py"]
    assert len(calls) == 1


def test_offline_error_names_wheel_and_command(locked: LockedWheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(
        command, 1, "", "WARNING: retrying\nERROR: No matching distribution found for tinypack==1.0\n"))
    with pytest.raises(DataError) as caught:
        list(source_files((locked,)))
    assert "tinypack-1.0-py3-none-any.whl" in caught.value.problem
    assert "No matching distribution" in caught.value.problem
    assert "-m pip download" in caught.value.mend and caught.value.mend.endswith("tinypack==1.0")


def test_damaged_wheel_is_refused(locked: LockedWheel, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "wheels" / locked.filename
    cached.parent.mkdir(parents=True)
    cached.write_bytes((tmp_path / locked.filename).read_bytes()[:-1])
    with pytest.raises(DataError, match="SHA-256") as caught:
        list(source_files((locked,)))
    assert f"rm {cached}" in caught.value.mend


@pytest.mark.parametrize("path", ["a/tests/b.py", "a/test/b.py", "a/_vendor/b.py", "a/test_b.py", "a/b_test.py",
                                  "tests/b.py", "a/conftest.py", "setup.py", "a/_version.py", "a/testing/x.py"])
def test_skipped_paths(path: str) -> None:
    assert not wheels.is_usable(path, b"x = 1\n")


@pytest.mark.parametrize("path", ["a/latest/b.py", "a/contest.py", "a/protest_b.py", "a/vendors.py"])
def test_kept_paths(path: str) -> None:
    assert wheels.is_usable(path, b"x = 1\n")


def test_generated_empty_and_huge_files_are_skipped() -> None:
    assert not wheels.is_usable("a/b.py", b"# This file was automatically generated by a tool\nx = 1\n")
    assert not wheels.is_usable("a/b.py", b"")
    assert not wheels.is_usable("a/b.py", b"x = 1\n" * 100_000)


def test_the_lock_is_sound() -> None:
    entries = json.loads(wheels.LOCK_PATH.read_text(encoding="utf-8"))["wheels"]
    assert len(entries) == len({entry["name"] for entry in entries}) >= 20
    for wheel in wheels.locked_wheels():
        assert wheel.filename.endswith("py3-none-any.whl")
        assert wheel.filename.split("-")[1] == wheel.version
        assert len(wheel.sha256) == len(wheel.python_digest) == 2 * hashlib.sha256().digest_size
        assert wheel.license in ("MIT", "BSD-3-Clause", "Apache-2.0")
