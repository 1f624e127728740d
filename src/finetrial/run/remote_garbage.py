"""What no run needs any more of a store at a URL: records that no plan names, files that no other record names,
and checkpoints of what is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetrial.errors import StoreError
from finetrial.records.record import Outcome, Record
from finetrial.run.garbage import choices, needed_keys, refuse_unnamed
from finetrial.run.lease import Lease, require_free
from finetrial.run.remote import CHECKPOINTS, OBJECTS, RECORDS, Remote, RemoteLease, object_name
from finetrial.run.store import key_of_entry


@dataclass(frozen=True)
class RemoteWaste:
    """An object of the store that no run needs, by its kind for people."""

    name: str
    kind: str
    num_bytes: int


def unused_remote(remote: Remote, runs: Path) -> tuple[list[RemoteWaste], list[str]]:
    """(objects that no run below `runs` needs, names of runs that were read); records before the files they name.

    Raises UserError where no run uses the store, StoreError while a driver computes, as what it has written is named by no
    record yet, and where a run's files, or a record that it needs, cannot be read, as what they name is unknown.
    """
    require_free(RemoteLease(remote))
    return _unused(remote, runs)


def _unused(remote: Remote, runs: Path) -> tuple[list[RemoteWaste], list[str]]:
    records = read_records(remote)
    selections = (record for record in records.values() if record.kind == "select")
    needed, named = needed_keys(runs, remote.url, choices(selections))
    refuse_unnamed(remote.url, runs, named, (record.kind for record in records.values()))
    sizes = remote.sizes(RECORDS)
    if unread := sorted(name for name in sizes if _key(name) in needed and name not in records):
        raise StoreError(f"{unread[0]} in the store {remote.url} cannot be read, so the files that it names are unknown",
                         "run its study again, which computes it anew, and then free what no run needs")
    waste = [RemoteWaste(name, name.split("/")[1], size) for name, size in sizes.items() if _key(name) not in needed]
    kept = {object_name(digest) for name, record in records.items() if _key(name) in needed for digest in record.files.values()}
    waste += [RemoteWaste(name, "files", size) for name, size in remote.sizes(OBJECTS).items() if name not in kept]
    final = {_entry(name) for name, record in records.items() if record.outcome in (Outcome.OK, Outcome.DIVERGED)}
    waste += [RemoteWaste(name, CHECKPOINTS, size) for name, size in remote.sizes(CHECKPOINTS).items()
              if _key(name) not in needed or _entry(name) in final]
    return waste, named


def read_records(remote: Remote) -> dict[str, Record]:
    """Every record of a store that can be read, by name."""
    found = {}
    for name, text in remote.read_all(remote.sizes(RECORDS)).items():
        try:
            found[name] = Record.model_validate_json(text)
        except ValidationError:
            continue  # it counts as absent, and is replaced by who computes it again
    return found


def remove_remote(waste: Iterable[RemoteWaste], remote: Remote, runs: Path) -> int:
    """Remove objects, in order, that no run below `runs` needs now either; the bytes that became free.

    No driver computes meanwhile. Raises StoreError while one does.
    """
    freed = 0
    with Lease(RemoteLease(remote)) as lease:
        still = {entry.name for entry in _unused(remote, runs)[0]}
        for entry in waste:
            if entry.name in still:
                lease.check()
                remote.remove(entry.name)
                freed += entry.num_bytes
    return freed


def _entry(name: str) -> str:
    """`<key>-<environment>`, of the name of a record, or of an object of a checkpoint."""
    return (name.split("/")[1] if name.startswith(CHECKPOINTS) else name.rpartition("/")[2]).removesuffix(".json")


def _key(name: str) -> str:
    return key_of_entry(_entry(name))
