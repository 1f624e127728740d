"""What of a store no run needs any more: entries that the plans of the runs beside it do not name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from finetrial.errors import UserError
from finetrial.plan.build import Resolved, build
from finetrial.records.record import Record
from finetrial.run.claim import RECORD
from finetrial.run.disk import size_of
from finetrial.run.lease import require_free
from finetrial.run.locks import try_lock
from finetrial.run.remote import is_url
from finetrial.spec.io import read_study

OWN_FOLDERS = ("corrupt", "tmp", "cache")  # damaged entries, what a killed process left, what can be computed again


@dataclass(frozen=True)
class Waste:
    """An entry of the store that no run names."""

    folder: Path
    kind: str
    num_bytes: int


def unused(store: Path, runs: Path) -> tuple[list[Waste], list[str]]:
    """(entries that no run below `runs` names, names of runs that were read).

    Raises UserError where a run cannot be planned any more: what it needs is then unknown, and nothing is waste.
    """
    needed, named = needed_keys(runs, str(store.resolve()), lambda key: _recorded_choice(store, key))
    waste = [Waste(path.parent, path.parent.parent.parent.name, size_of(path.parent))
             for path in sorted(store.glob(f"*/??/*/{RECORD}"))
             if path.parent.name.rpartition("-")[0] not in needed]
    waste += [Waste(folder, name, size_of(folder)) for name in OWN_FOLDERS
              for folder in sorted((store / name).glob("*")) if folder.is_dir()]
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


def needed_keys(runs: Path, location: str, chosen: Callable[[str], str | None]) -> tuple[set[str], list[str]]:
    """(the keys of every stage of the runs that use a store, as far as selections are recorded; the runs' names).

    `chosen`: what a selection chose, by its key. Raises UserError where a run cannot be planned any more.
    """
    needed: set[str] = set()
    named = []
    for file in sorted(runs.glob("*/run.json")):
        how = json.loads(file.read_text(encoding="utf-8"))
        if how["store"] == location or (not is_url(how["store"]) and str(Path(how["store"]).resolve()) == location):
            needed |= _keys(file.parent, how, chosen)
            named.append(file.parent.name)
    return needed, named


def _keys(folder: Path, how: dict[str, str | None], chosen: Callable[[str], str | None]) -> set[str]:
    relative_to = Path(how["relative_to"]) if how["relative_to"] else None
    try:
        plan = build(read_study(folder / "study.yaml", relative_to), resolved=Resolved(), relative_to=relative_to)
    except UserError as error:
        raise UserError(f"run {folder.name} cannot be planned any more, so what it needs is unknown: {error.problem}",
                        "mend what it names, or remove the run's folder if it is not needed") from error

    return {key for key in plan.keys(lambda select, key: chosen(key)).values() if key is not None}


def _recorded_choice(store: Path, key: str) -> str | None:
    for path in store.glob(f"select/{key[:2]}/{key}-*/{RECORD}"):
        return choice_of(Record.model_validate_json(path.read_bytes()))
    return None


def choice_of(record: Record) -> str | None:
    """What a selection chose."""
    chosen = record.values.get("chosen")
    return None if chosen is None else str(chosen)
