"""`finetrial plan`: what a run would do, and what of it the store holds. Imports no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finetrial.cli.output import print_json, say
from finetrial.cli.study import Changes, find_study
from finetrial.plan.build import build
from finetrial.plan.plan import Plan
from finetrial.plan.show import render, summarise
from finetrial.records.record import Environment, Record
from finetrial.run.job import is_final
from finetrial.run.store import RECORD


def plan_command(name: str, changes: Changes, *, store: Path, device: str, as_json: bool) -> None:
    """Print the plan's summary. Raises UserError where the study cannot be planned."""
    found = find_study(name, changes)
    plan = build(found.study, relative_to=found.relative_to)
    summary = summarise(found.study, plan, recorded=recorded(plan, store, device), relative_to=found.relative_to)
    if as_json:
        print_json(summary.as_json())
    else:
        say(render(summary))


def recorded(plan: Plan, store: Path, device: str) -> set[str]:
    """The ids of the stages that the store holds for this device and the installed packages. Selections are followed.

    The instruction set, which belongs to the environment class too, is only known to torch: it is taken to be the same.
    """
    records = _records(store, device)

    def choice(select: str, key: str) -> str | None:
        found = records.get(key)
        return found.values.get("chosen") if found is not None else None

    return {stage for stage, key in plan.keys(choice).items() if key in records}


def _records(store: Path, device: str) -> dict[str, Record]:
    """The records that a run would not compute again, by key."""
    found: dict[str, Record] = {}
    for path in store.glob(f"*/??/*/{RECORD}"):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # damaged, or just being replaced: a run would compute it again, so it is not recorded
        if is_final(record) and _is_ours(record.environment, device):
            found[record.key] = record
    return found


def _is_ours(environment: Environment, device: str) -> bool:
    packages = {"torch": environment.torch, "transformers": environment.transformers, "peft": environment.peft}
    return device in ("auto", environment.device) and all(_version(name) == its for name, its in packages.items())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
