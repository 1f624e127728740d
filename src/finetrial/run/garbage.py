"""What of a store no run needs any more: entries that the plans of the runs beside it do not name."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetrial.errors import UserError
from finetrial.plan.build import Resolved, build
from finetrial.records.record import Record
from finetrial.run.claim import RECORD
from finetrial.run.disk import size_of
from finetrial.run.earlier import EARLIER
from finetrial.run.lease import require_free
from finetrial.run.locks import try_lock
from finetrial.run.run_file import RUN_FILE, STUDY_FILE, read_how
from finetrial.spec.io import read_study

Choices = dict[str, dict[str, str]]  # environment key -> key of a selection -> what it chose

OWN_FOLDERS = ("corrupt", "tmp", "cache")  # damaged entries, what a killed process left, what can be computed again


@dataclass(frozen=True)
class Waste:
    """An entry of the store that no run names."""

    folder: Path
    kind: str
    num_bytes: int


def unused(store: Path, runs: Path) -> tuple[list[Waste], list[str]]:
    """(entries that no run below `runs` names, names of runs that were read).

    Raises UserError where a run cannot be planned any more, or none uses the store: what is needed is then unknown, and
    nothing is waste.
    """
    selections = (Record.model_validate_json(path.read_bytes()) for path in store.glob(f"select/*/*/{RECORD}"))
    needed, named = needed_keys(runs, str(store.resolve()), choices(selections))
    waste = [Waste(path.parent, path.parent.parent.parent.name, size_of(path.parent))
             for path in sorted(store.glob(f"*/??/*/{RECORD}"))
             if path.parent.name.rpartition("-")[0] not in needed]
    waste += [Waste(folder, name, size_of(folder)) for name in OWN_FOLDERS
              for folder in sorted((store / name).glob("*")) if folder.is_dir()]
    refuse_unnamed(str(store), runs, named, (entry.kind for entry in waste))
    return waste, named


def remove(waste: Iterable[Waste], store: Path) -> int:
    """Delete entries that no process holds; the bytes that became free (hard links elsewhere keep their content).

    Raises StoreError while a cluster computes, whose nodes hold no locks.
    """
    require_free(store)
    freed = 0
    for entry in waste:
        lock = try_lock(store / "locks" / entry.folder.name.partition(".")[0])
        if lock is None:
            continue  # a run computes it just now
        with lock:
            shutil.rmtree(entry.folder, ignore_errors=entry.kind in OWN_FOLDERS)  # a run may write there just now
            freed += entry.num_bytes
    return freed


def needed_keys(runs: Path, location: str, chosen: Choices) -> tuple[set[str], list[str]]:
    """(the keys of every stage of the runs that use a store, as far as selections are recorded; the runs' names): all that
    is needed in any class of machine. Raises UserError where a run cannot be planned any more.
    """
    needed: set[str] = set()
    named = []
    for file in (*sorted(runs.glob(f"*/{RUN_FILE}")), *sorted(runs.glob(f"*/{EARLIER}/*/{RUN_FILE}"))):
        how = read_how(file.parent)
        if how.store == location:
            name = file.parent.relative_to(runs).as_posix()
            needed |= _keys(file.parent, name, how.relative_to, chosen)
            named.append(name)
    return needed, named


def refuse_unnamed(location: str, runs: Path, named: Sequence[str], kinds: Iterable[str]) -> None:
    """Raises UserError where no run names a store that holds more than waste: what runs need of it is then unknown.

    `kinds`: of the entries that would be freed.
    """
    if not named and set(kinds) - {*OWN_FOLDERS}:
        raise UserError(f"no run below {runs} uses the store {location}, so what is needed of it is unknown",
                        "--runs DIR says where its runs lie; if it was moved, write its place as `store` into their "
                        f"{RUN_FILE}; if none of it is needed, delete the store itself")


def _keys(folder: Path, name: str, relative_to: Path | None, chosen: Choices) -> set[str]:
    try:
        plan = build(read_study(folder / STUDY_FILE, relative_to), resolved=Resolved(), relative_to=relative_to)
    except UserError as error:
        raise UserError(f"run {name} cannot be planned any more, so what it needs is unknown: {error.problem}",
                        "mend what it names, or remove the run's folder if it is not needed") from error

    return {key for of_machine in chosen.values() or ({},)
            for key in plan.keys(functools.partial(_chosen, of_machine)).values() if key is not None}


def _chosen(of_machine: Mapping[str, str], select: str, key: str) -> str | None:
    return of_machine.get(key)


def choices(selections: Iterable[Record]) -> Choices:
    """What recorded selections chose: by class of machine, where scores and so choices may differ, and by key."""
    found: Choices = {}
    for record in selections:
        if (chosen := record.values.get("chosen")) is not None:
            found.setdefault(record.environment.key(), {})[record.key] = str(chosen)
    return found
