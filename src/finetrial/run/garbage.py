"""What of a store no run needs any more: entries that the plans of the runs beside it do not name.

A run's plan is the one in its folder, which was written before anything of it was computed; what its data, its bases and
finetrial have become since does not matter.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetrial.errors import StoreError, UserError
from finetrial.plan.plan import described_stages, keys_of
from finetrial.records.record import Record
from finetrial.run.claim import RECORD
from finetrial.run.disk import size_of
from finetrial.run.lease import require_free
from finetrial.run.locks import try_lock
from finetrial.run.run_file import EARLIER, PROFILE, RUN_FILE, read_how, read_plan
from finetrial.run.store import CACHE, CHECKPOINTS, key_of_entry

Choices = dict[str, dict[str, str]]  # environment key -> key of a selection -> what it chose

PLACES = ("*", f"*/{EARLIER}/*", f"*/{PROFILE}")  # of runs, earlier ones and profiles, below the folder of runs
FREE_TO_REMOVE = ("corrupt", "tmp", CACHE)  # damaged entries, what a killed process left, what can be computed again


@dataclass(frozen=True)
class Waste:
    """An entry of the store that no run names."""

    folder: Path
    kind: str
    num_bytes: int


def unused(store: Path, runs: Path) -> tuple[list[Waste], list[str]]:
    """(entries that no run below `runs` names, names of runs that were read).

    Raises StoreError where what a run needs cannot be known, UserError where none uses the store: nothing is waste then.
    """
    needed, named = _needed_of(store, runs)
    waste = [Waste(path.parent, path.parent.parent.parent.name, size_of(path.parent))
             for path in sorted(store.glob(f"*/??/*/{RECORD}")) if key_of_entry(path.parent.name) not in needed]
    waste += [Waste(folder, CHECKPOINTS, size_of(folder)) for folder in sorted((store / CHECKPOINTS).glob("*"))
              if key_of_entry(folder.name) not in needed]
    waste += [Waste(folder, name, size_of(folder)) for name in FREE_TO_REMOVE
              for folder in sorted((store / name).glob("*")) if folder.is_dir()]
    refuse_unnamed(str(store), runs, named, (entry.kind for entry in waste))
    return waste, named


def remove(waste: Sequence[Waste], store: Path, runs: Path) -> int:
    """Delete entries that no process holds and that no run below `runs` needs now either; the bytes that became free (hard
    links elsewhere keep their content).

    Raises StoreError while a cluster computes, whose nodes hold no locks, and what `unused` raises.
    """
    require_free(store)
    needed, named = _needed_of(store, runs)
    refuse_unnamed(str(store), runs, named, (entry.kind for entry in waste))
    freed = 0
    for entry in waste:
        if entry.kind not in FREE_TO_REMOVE and key_of_entry(entry.folder.name) in needed:
            continue  # a run has come to need it
        lock = try_lock(store / "locks" / entry.folder.name.partition(".")[0])
        if lock is None:
            continue  # a run computes it just now
        with lock:
            shutil.rmtree(entry.folder, ignore_errors=entry.kind in FREE_TO_REMOVE)  # a run may write there just now
            freed += entry.num_bytes
    return freed


def _needed_of(store: Path, runs: Path) -> tuple[set[str], list[str]]:
    """`needed_keys` of a store in a folder. Raises StoreError, too, where a selection that is needed cannot be read."""
    selections, unread = _selections(store)
    needed, named = needed_keys(runs, str(store.resolve()), choices(selections))
    if lost := sorted(str(path) for path in unread if key_of_entry(path.parent.name) in needed):
        raise StoreError(f"{lost[0]} cannot be read, so what was selected is unknown",
                         "run its study again, which computes it anew, and then free what no run needs")
    return needed, named


def needed_keys(runs: Path, location: str, chosen: Choices) -> tuple[set[str], list[str]]:
    """(the keys of every stage that the runs which use a store have planned, as far as selections are recorded; the runs'
    names): all that is needed in any class of machine. Raises StoreError where a run's files cannot be read.
    """
    needed: set[str] = set()
    named = []
    for file in (path for place in PLACES for path in sorted(runs.glob(f"{place}/{RUN_FILE}"))):
        if read_how(file.parent).store == location:
            stages = described_stages(read_plan(file.parent))
            needed |= {key for of_machine in chosen.values() or ({},)
                       for key in keys_of(stages, functools.partial(_chosen, of_machine)).values() if key is not None}
            named.append(file.parent.relative_to(runs).as_posix())
    return needed, named


def refuse_unnamed(location: str, runs: Path, named: Sequence[str], kinds: Iterable[str]) -> None:
    """Raises UserError where no run names a store that holds more than waste: what runs need of it is then unknown.

    `kinds`: of the entries that would be freed.
    """
    if not named and set(kinds) - {*FREE_TO_REMOVE}:
        raise UserError(f"no run below {runs} uses the store {location}, so what is needed of it is unknown",
                        "--runs DIR says where its runs lie; if it was moved, write its place as `store` into their "
                        f"{RUN_FILE}; if none of it is needed, delete the store itself")


def _chosen(of_machine: Mapping[str, str], select: str, key: str) -> str | None:
    return of_machine.get(key)


def _selections(store: Path) -> tuple[list[Record], list[Path]]:
    """The recorded selections, and the files of those that cannot be read."""
    found, unread = [], []
    for path in store.glob(f"select/*/*/{RECORD}"):
        try:
            found.append(Record.model_validate_json(path.read_bytes()))
        except (ValidationError, OSError):
            unread.append(path)
    return found, unread


def choices(selections: Iterable[Record]) -> Choices:
    """What recorded selections chose: by class of machine, where scores and so choices may differ, and by key."""
    found: Choices = {}
    for record in selections:
        if (chosen := record.values.get("chosen")) is not None:
            found.setdefault(record.environment.key(), {})[record.key] = str(chosen)
    return found
