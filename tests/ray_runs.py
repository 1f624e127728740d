"""Runs on a Ray cluster of several nodes on this machine, and what they leave: for tests that kill nodes."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

NODE_MEMORY = 80 << 20  # of a node's object store, the least that Ray takes


class Nodes:
    """A cluster whose head has no cores: phases run on the nodes that are added to it, with one core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": NODE_MEMORY})
        self.address = self._cluster.address
        self.alive: list[Any] = []

    def add(self) -> None:
        self.alive.append(self._cluster.add_node(num_cpus=1, object_store_memory=NODE_MEMORY))

    def kill(self, place: int = 0) -> None:
        self._cluster.remove_node(self.alive.pop(place), allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


def command(folder: Path, runs: str, *options: str) -> list[str]:
    """`finetrial run` of the study in a folder, with its runs in another folder there."""
    return [sys.executable, "-m", "finetrial.cli", "run", str(folder / "study.yaml"), "--runs", str(folder / runs),
            "--device", "cpu", *options]


def records(folder: Path, runs: str, kind: str = "*") -> dict[Path, tuple[int, int]]:
    """What the store holds: file of the record -> which file it is, and when it was written."""
    found = {}
    for path in (folder / runs / ".store").glob(f"{kind}/??/*/record.json"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def values(folder: Path, runs: str) -> dict[str, Any]:
    """What was computed, by key; without what says how long it took: profiles, and the learning curve with its seconds."""
    found = {}
    for path in records(folder, runs):
        record = json.loads(path.read_text())
        if record["kind"] != "profile":
            files = {name: digest for name, digest in record["files"].items() if name != "metrics.jsonl"}
            found[record["key"]] = (record["stage_id"], record["outcome"], files)
    return found


def scores(folder: Path, runs: str) -> list[dict[str, Any]]:
    """The scores of the one run there."""
    (path,) = (folder / runs).glob("*/results.json")
    found: list[dict[str, Any]] = json.loads(path.read_text())["scores"]
    return found
