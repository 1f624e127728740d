"""How a study is run, and the folder that its run has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetrial.run.remote import located
from finetrial.spec.study import Study


@dataclass(frozen=True)
class RunOptions:
    """How a study is run. Nothing here changes a result but `device`, which is part of the environment class."""

    runs: Path = Path("runs")
    store: Path | str | None = None  # a folder, or a URL; None = <runs>/.store
    device: str = "auto"
    stack: int | None = None  # LoRA cells trained in one pass over their base, at most; None = as many as pay
    processes: int = 1  # that compute a training phase together, each on a core or a GPU of its own
    shard: bool = False  # and hold the model's parameters between them meanwhile
    jobs: int | None = None  # None = as many phases as there are cores (CPU) for, one (accelerator)
    log_level: str = "info"
    timeout_seconds: float | None = None  # for one stage
    within_seconds: float | None = None  # None = all seeds, however long they take
    more_seeds_from: tuple[int, ...] | None = None  # the study's seeds before more were added; None = none were
    fits: bool = False  # whether it is known that the first seeds fit into that time
    accept: tuple[str, ...] = ()
    figures: bool = True
    on: str = "local"  # or "ray": a cluster
    address: str | None = None  # of the cluster; None = the one that this machine is a node of
    memory_bytes: int | None = None  # that a phase reserves on a cluster; None = it is not counted
    view: bool = True  # show progress on standard error
    allow_unsandboxed: bool = False  # run generated code even where layers of the sandbox are missing

    def store_location(self) -> Path | str:
        """Where the stage store lies: a folder, or a URL."""
        return located(self.store, self.runs)


def run_folder(study: Study, runs: Path) -> Path:
    """`runs/<study>-<scale>-<size>`."""
    return folder_named(runs, study.name, study.scale, study.size)


def folder_named(runs: Path, name: str, scale: str, size: str) -> Path:
    """The same, of a study that is not written yet."""
    return runs / f"{name}-{scale}-{size}"
