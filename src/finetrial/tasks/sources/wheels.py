"""The Python packages the embedded corpus is mined from, the same bytes on every machine.

`corpus.lock` (beside this file) names pure-Python wheels by version, file name and SHA-256, and carries for each the
digest of all its .py files. A locked package is read from the running environment when it is installed in the locked
version and its .py files have that digest; otherwise from its wheel in the cache, which `pip download` fetches and
whose SHA-256 is checked. `source_files()` yields the same (package, path, bytes) in the same order either way.

Left out, by path or content: tests, vendored code, generated files, and files above `MAX_FILE_BYTES` (data tables).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from finetrial.cache import cache_root
from finetrial.errors import DataError
from finetrial.fingerprint import file_digest, key_of

LOCK_PATH = Path(__file__).with_name("corpus.lock")
MAX_FILE_BYTES = 400_000
SKIPPED_PATH = re.compile(
    r"(^|/)(tests?|testing|test_utils|_?vendor|_?vendored|third_party|_?extern|externals?|substrates)/"
    r"|(^|/)(test_[^/]*|[^/]*_test|conftest|setup|_?version)\.py$"
)
GENERATED = re.compile(rb"(?i)(automatically|auto)[ -]?generated|generated (automatically|by)|do not edit")
HEADER_BYTES = 3_000  # how far into a file a "generated" notice is looked for
PURE_WHEEL = "-none-any.whl"


@dataclass(frozen=True)
class LockedWheel:
    """One locked package. `python_digest`: SHA-256 over `path sha256` lines of all its .py files, sorted by path."""

    name: str
    version: str
    filename: str
    sha256: str
    python_digest: str
    license: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class SourceFile:
    """One Python file: `path` is POSIX, relative to site-packages."""

    package: str
    path: str
    data: bytes


@cache
def locked_wheels() -> tuple[LockedWheel, ...]:
    """The lock's packages, sorted by name."""
    entries = json.loads(LOCK_PATH.read_text(encoding="utf-8"))["wheels"]
    return tuple(sorted((LockedWheel(**entry) for entry in entries), key=lambda wheel: wheel.name))


def lock_digest() -> str:
    """Content key of the lock."""
    return key_of([[wheel.name, wheel.version, wheel.python_digest] for wheel in locked_wheels()])


def source_files(wheels: tuple[LockedWheel, ...] | None = None) -> Iterator[SourceFile]:
    """All usable Python files of the locked packages, sorted by package, then path.

    Raises DataError when a wheel is neither installed nor cached and can't be fetched, or its digest is wrong.
    """
    for wheel in locked_wheels() if wheels is None else wheels:
        files = python_files(wheel)
        for path in sorted(files):
            if is_usable(path, files[path]):
                yield SourceFile(wheel.name, path, files[path])


def is_usable(path: str, data: bytes) -> bool:
    """False for tests, vendored and generated code, and files too large to be written by hand."""
    if SKIPPED_PATH.search(path) or not data or len(data) > MAX_FILE_BYTES:
        return False
    return not GENERATED.search(data[:HEADER_BYTES])


def python_files(wheel: LockedWheel) -> dict[str, bytes]:
    """All .py files of a locked package by path: from the environment if identical there, else from its wheel."""
    installed = installed_python(wheel)
    if installed is not None and content_digest(installed) == wheel.python_digest:
        return installed
    files = read_wheel(fetched_wheel(wheel))
    if content_digest(files) != wheel.python_digest:
        raise DataError(f"the .py files of {wheel.filename} have digest {content_digest(files)}, "
                        f"corpus.lock says {wheel.python_digest}", "corpus.lock is damaged: reinstall finetrial")
    return files


def content_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over one line `path sha256` for each file, sorted by path."""
    lines = (f"{path} {hashlib.sha256(files[path]).hexdigest()}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def installed_python(wheel: LockedWheel) -> dict[str, bytes] | None:
    """The .py files of the installed distribution, or None if absent, of another version, or incomplete."""
    try:
        distribution = importlib.metadata.distribution(wheel.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if distribution.version != wheel.version or distribution.files is None:
        return None
    files = {}
    for entry in distribution.files:
        path = entry.as_posix()
        if _is_package_python(path):
            try:
                files[path] = Path(str(entry.locate())).read_bytes()
            except FileNotFoundError:
                return None
    return files


def read_wheel(path: Path) -> dict[str, bytes]:
    """The .py files of a wheel by path."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if _is_package_python(name)}


def fetched_wheel(wheel: LockedWheel) -> Path:
    """The wheel's path in the cache, fetched with pip if needed; its SHA-256 is always checked."""
    return fetched(wheel.requirement, wheel.filename, wheel.sha256, LOCK_PATH.name)


def fetched(requirement: str, filename: str, sha256: str, lock: str) -> Path:
    """A wheel's path in the cache, fetched with pip if needed. Raises DataError unless it has the SHA-256 of `lock`.

    Where a release has wheels for this platform beside one for any, pip would take the former: it is asked for the latter.
    """
    folder = cache_root() / "wheels"
    path = folder / filename
    platform = ["--platform", "any"] if filename.endswith(PURE_WHEEL) else []
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *platform,
               "--dest", str(folder), requirement]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not path.exists():
            reason = ((done.stderr.strip().splitlines() or ["pip gave no reason"])[-1] if done.returncode
                      else f"it took another file of {requirement}")
            raise DataError(f"the corpus needs {filename}, which is neither installed nor in {folder}; "
                            f"pip could not fetch it: {reason}", "when online again, run: " + " ".join(command))
    if file_digest(path) != sha256:
        raise DataError(f"{path} has SHA-256 {file_digest(path)}, {lock} says {sha256}",
                        f"delete it and fetch it again: rm {path} && {' '.join(command)}")
    return path


def lock_wheel(path: Path, license: str) -> dict[str, str]:
    """The lock's entry for a wheel file."""
    name, version = path.name.split("-")[:2]
    return {"name": name.lower().replace("_", "-"), "version": version, "filename": path.name,
            "sha256": file_digest(path), "python_digest": content_digest(read_wheel(path)), "license": license}


def _is_package_python(path: str) -> bool:
    return path.endswith(".py") and not path.startswith("..") and ".data/" not in path
