"""Costs of different machines: their difference is the arms' and the machines'.

A record of another environment class is never read for a study, but the class holds what decides bits, not speed: one
class may be processors of several generations, and nodes of a cluster or machines that share a store may so differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Recorded
from finetrial.records.record import Outcome, Record
from finetrial.spec.study import Study

Models = Mapping[str, set[str]]  # host -> what its processor is called, by records that say it


class MixedMachines(Rule):
    """The costs of a base's arms, which are compared, were measured on one kind of machine."""

    summary: ClassVar[str] = "costs that are compared were measured on different kinds of machines"

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """A threat for each base whose profiles come from machines with several kinds of processors."""
        measured = [(base, arm, record) for (base, arm, _), stages in records.plan.profiles.items()
                    for record in _that_ended_well(records, stages)]
        models: dict[str, set[str]] = {}
        for _, _, record in measured:
            if (host := record.execution.get("host")) and (model := record.execution.get("cpu")):
                models.setdefault(host, set()).add(model)
        for base in dict.fromkeys(row[0] for row in measured):
            arms: dict[str, dict[str, None]] = {}  # machine -> names, in order
            for arm, machine in ((arm, _machine(record, models)) for of, arm, record in measured if of == base):
                if machine is not None:
                    arms.setdefault(machine, {})[arm] = None
            if len(arms) > 1:
                where = "; ".join(f"{', '.join(names)} on {machine}" for machine, names in arms.items())
                yield Found("threat", f"costs on {base} were measured on different machines ({where}): times and memory "
                                      "that differ are the arms' and the machines'. Remove what the store holds below "
                                      "`profile`, which is measurements and nothing else, and measure all of them on one "
                                      "machine: finetrial profile", f"bases.{base}")


def _that_ended_well(records: Recorded, stages: Sequence[str]) -> list[Record]:
    found = (records.lookup(stage) for stage in stages)
    return [entry.record for entry in found if entry is not None and entry.record.outcome is Outcome.OK]


def _machine(record: Record, models: Models) -> str | None:
    """What a record was made on: the processor's name; of a record that does not say it (an early one, or of a processor
    without a name) the name that others of its host say, or else the host. None where it says neither."""
    if model := record.execution.get("cpu"):
        return str(model)
    host = record.execution.get("host")
    known = models.get(host, set()) if host else set()
    return next(iter(known)) if len(known) == 1 else f"host {host}" if host else None
