"""A small laboratory for runs: a store, toy kinds of stages, and a way to execute them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetrial import catalog
from finetrial.records.record import Environment, Outcome, Record
from finetrial.run.execute import execute
from finetrial.run.store import Store
from finetrial.stages.base import Stage

TOYS = tuple(sorted((Path(__file__).parent / "toys").glob("*.py")))
PRELOAD = tuple(kind.base_module for kind in catalog.KINDS.values())  # what add_file needs; no torch
HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")


class Laboratory:
    """Executes toy stages in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_folder = folder / "run"
        self.started_file = folder / "started"
        self.kill_file = folder / "kill"
        self.events = []

    def stage(self, name, inputs=None, *, kind="toy", memory=None, group="", exclusive=False, **spec) -> Stage:
        locations = {"started": str(self.started_file), "kill": str(self.kill_file),
                     "memory": str(self.folder / (memory or f"memory-{name.replace('/', '-')}"))}
        return Stage(name, kind, 1, {"value": name, **spec}, inputs or {}, group=group, label=f"label of {name}",
                     exclusive=exclusive, locations=locations)

    def execute(self, *stages, jobs=2, run_folder=None, listener=None, store=None, **more):
        """With a store of its own on the same folder, as another process would have, unless one is given."""
        self.events = []
        how = {"device": "cpu", "environment": HERE, "plugins": TOYS, "preload": PRELOAD, **more}
        return execute(stages, store or Store(self.folder / "store"), run_folder or self.run_folder, jobs=jobs,
                       listener=listener or self.events.append, **how)

    def started(self) -> list[str]:
        """The id of every stage that was started, in order."""
        if not self.started_file.exists():
            return []
        return [line.split()[0] for line in self.started_file.read_text().splitlines()]

    def log(self, name) -> str:
        return (self.run_folder / "logs" / f"{name.replace('/', '__')}.log").read_text()


@pytest.fixture
def laboratory(tmp_path) -> Laboratory:
    for path in TOYS:
        catalog.add_file(path)
    return Laboratory(tmp_path)


@pytest.fixture
def until_it_raises() -> Callable[[Callable[[], object]], None]:
    """Asks again and again, for 10 seconds at most: what a thread has still to notice."""
    def ask(check: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            check()

    return ask


@pytest.fixture
def environment() -> Environment:
    return HERE


@pytest.fixture
def make_record():
    def make(key="ab" * 16, outcome=Outcome.OK, environment=HERE, **more) -> Record:
        return Record(**{"key": key, "stage_id": "toy/1", "kind": "toy", "identity": {}, "environment": environment,
                         "outcome": outcome, "started": "2026-01-01T00:00:00", "seconds": 1.5, **more})
    return make
