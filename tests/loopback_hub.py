"""A hub on this machine: a small server that speaks the Hugging Face hub's protocol and serves repositories of bytes.

It lets tests use huggingface_hub's real code (downloads, revisions, cache, offline mode, errors) without the internet:

    with LoopbackHub() as hub:
        commit = hub.add("dataset", "owner/name", {"data/train-0.jsonl": b"..."})
        hub.point_at_it(monkeypatch, cache)

Routes: `/api/{models,datasets}/{repo}[/revision/{rev}]`, `.../tree/{rev}[/{path}]`, and `[/datasets]/{repo}/resolve/{rev}/
{file}` with HEAD, GET and Range. `gate` asks for a token; `fault` answers some requests with an error or a broken body.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import pytest

LARGE_BYTES = 200  # files from this size on are "large": listed with their SHA-256, as on the hub
TOKEN = "hf_loopback"
API = re.compile(r"^/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?$")
RESOLVE = re.compile(r"^/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class Repository:
    """Commits (files by name) and what branches and tags point at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """What to answer instead, to requests of `method` ('' = any) whose path contains `where`, `times` times."""

    where: str
    status: int = 200
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Literal["", "cut off", "altered"] = ""
    times: int = 1_000


class LoopbackHub:
    """Serves from the first `with` line to the last. `requests` lists "METHOD path" of every request so far."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, kind: Literal["model", "dataset"], name: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A new commit of a repository; `branch` points at it from now on. Returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository())
        content = json.dumps([[path, hashlib.sha256(data).hexdigest()] for path, data in sorted(files.items())])
        commit = hashlib.sha1(f"{name} {len(repository.commits)} {content}".encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.refs[branch] = commit
        return commit

    def gate(self, kind: Literal["model", "dataset"], name: str) -> None:
        """From now on the files (not the listing) of a repository need the token `TOKEN`."""
        self.repositories[kind, name].is_gated = True

    def fault(self, fault: Fault) -> None:
        """Answer some requests wrongly; the first fault that fits and is not used up counts."""
        self.faults.append(fault)

    def point_at_it(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Make huggingface_hub use this server, an empty cache, no login, and no waiting between retries.

        The library reads its settings from the environment once, at import; so they are set where it keeps them.
        """
        from huggingface_hub import close_session, constants
        from huggingface_hub.utils import _http

        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()  # connections are made anew, without a proxy
        monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                            self.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            raw = urlsplit(self.path).path
            path = unquote(raw)
            hub.requests.append(f"{self.command} {path}")
            fault = next((one for one in hub.faults if one.times > 0 and one.where in path
                          and one.method in ("", self.command)), None)
            if fault is not None:
                fault.times -= 1
            if fault is not None and fault.status != 200:
                self.respond(_Answer(fault.status, b"{}", fault.headers))
            else:
                self.respond(_answer(hub, raw, self.headers), fault.body if fault else "")

        do_HEAD = do_GET

        def respond(self, answer: _Answer, damage: str = "") -> None:
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            body = answer.body
            if damage == "altered":
                body = bytes(byte ^ 1 for byte in body)
            if damage == "cut off":
                body = body[:len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the output of tests clean."""

    return Handler


def _answer(hub: LoopbackHub, raw_path: str, headers: Any) -> _Answer:
    """A slash in a revision comes quoted, so parts are unquoted after the path is taken apart."""
    if match := API.match(raw_path):
        kind, name, what, revision, folder = (unquote(part or "") for part in match.groups())
        return _listing(hub, kind.removesuffix("s"), name, what, revision or "main", folder)
    if match := RESOLVE.match(raw_path):
        prefix, name, revision, file = (unquote(part or "") for part in match.groups())
        return _file(hub, "dataset" if prefix else "model", name, revision, file, headers)
    return _Answer(404)


def _listing(hub: LoopbackHub, kind: str, name: str, what: str, revision: str, folder: str) -> _Answer:
    repository = hub.repositories.get((kind, name))
    if repository is None:
        return _Answer(401, headers={"X-Error-Code": "RepoNotFound"})  # what the hub says to strangers
    commit = repository.commit_of(revision)
    if commit is None:
        return _Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
    files = repository.commits[commit]
    if what == "tree":
        listed: Any = [{"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                       for path, data in sorted(files.items()) if path.startswith(folder)]
    else:
        listed = {"id": name, "sha": commit, "private": False, "gated": "auto" if repository.is_gated else False,
                  "disabled": False, "downloads": 0, "likes": 0, "tags": [],
                  "siblings": [_sibling(path, data) for path, data in sorted(files.items())]}
    return _Answer(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": _oid(data)}
    if len(data) >= LARGE_BYTES:
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def _file(hub: LoopbackHub, kind: str, name: str, revision: str, file: str, headers: Any) -> _Answer:
    repository = hub.repositories.get((kind, name))
    if repository is None:
        return _Answer(401, headers={"X-Error-Code": "RepoNotFound"})
    if repository.is_gated and headers.get("Authorization") != f"Bearer {TOKEN}":
        return _Answer(401, headers={"X-Error-Code": "GatedRepo"})
    commit = repository.commit_of(revision)
    if commit is None:
        return _Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
    if file not in repository.commits[commit]:
        return _Answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
    data = repository.commits[commit][file]
    etag = hashlib.sha256(data).hexdigest() if len(data) >= LARGE_BYTES else _oid(data)
    told = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    wanted = re.match(r"bytes=(\d+)-(\d*)$", headers.get("Range", ""))
    if wanted is None:
        return _Answer(200, data, told)
    first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
    return _Answer(206, data[first:last + 1], {**told, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def _oid(data: bytes) -> str:
    """A git blob's id."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
