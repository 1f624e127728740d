"""`finetrial plan`: what a run would do, and what of it the store holds. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finetrial.cli.options import Device
from finetrial.cli.output import print_json, say
from finetrial.cli.study import Changes, find_study
from finetrial.plan.build import build
from finetrial.plan.forecast.device import device_bytes
from finetrial.plan.forecast.operations import given_rate
from finetrial.plan.forecast.study import forecast_study
from finetrial.plan.matched import matched
from finetrial.plan.plan import Plan
from finetrial.plan.power import Forecast, forecast_power, stated_noise
from finetrial.plan.show import render, summarise
from finetrial.records.record import Environment, Record
from finetrial.run import machine
from finetrial.run.claim import RECORD
from finetrial.run.collect import collect
from finetrial.run.job import is_final
from finetrial.run.provenance import known_cpu_capability
from finetrial.run.ranks import check_processes
from finetrial.spec.study import Study
from finetrial.stages.base import StageInput

THIS = "this machine"


def plan_command(name: str, changes: Changes, *, store: Path | str, device: str, as_json: bool,
                 expect_sd: str | None = None, rate: str | None = None, processes: int = 1, shard: bool = False) -> None:
    """Print the plan's summary. `device` may be an amount of memory, or `this` machine's: then the forecast says what
    fits. Raises UserError where the study cannot be planned, or `processes` cannot train it together."""
    device, asked, available = _asked(device)
    on_gpu = available is not None and (asked != THIS or bool(machine.accelerator_bytes()))
    given = given_rate(rate) if rate is not None else None
    found = find_study(name, changes)
    wanted = _wanted(device)
    held = _held(store)
    ours = {key: entry for environment, entries in held.items() if not _differences(environment, wanted)
            for key, entry in entries.items()}
    study = matched(found.study, recorded=lambda plan: _recorded(plan, ours), relative_to=found.relative_to, fetch=False)
    plan = build(study, relative_to=found.relative_to, fetch=False)
    check_processes(processes, plan.stages, "cuda", stack=1, local=False, shard=shard)
    there = _recorded(plan, ours)
    summary = summarise(study, plan, recorded=set(there), relative_to=found.relative_to,
                        notes=tuple(_elsewhere(plan, held, set(there), wanted)),
                        power=_power(study, plan, there, expect_sd),
                        forecast=forecast_study(study, plan, recorded=there, relative_to=found.relative_to,
                                                device=asked, available_bytes=available, on_gpu=on_gpu, rate=given,
                                                processes=processes, split=shard))
    if as_json:
        print_json(summary.as_json())
    else:
        say(render(summary))


def _asked(device: str) -> tuple[str, str, int | None]:
    """(where records are looked up, what was asked about, its bytes) of `--device`; no bytes for a kind of device."""
    if device in tuple(Device):
        return device, "", None
    if device != "this":
        return "auto", device, device_bytes(device)
    smallest = min(machine.accelerator_bytes(), default=None)
    return "auto", THIS, smallest or machine.memory_bytes()[1]


def _power(study: Study, plan: Plan, there: Mapping[str, StageInput], expect_sd: str | None) -> tuple[Forecast, ...]:
    """What the run could find, by the noise of what is recorded, else by what is expected."""
    expected = stated_noise(expect_sd) if expect_sd is not None else None
    table = collect(study, plan, there.get, {}) if there else None
    return forecast_power(study, table, expected=expected, num_looks=max(1, len(study.looks)))


def _recorded(plan: Plan, entries: Mapping[str, StageInput]) -> Mapping[str, StageInput]:
    """What of these entries the plan asks for, by stage. Selections are followed."""
    def choice(select: str, key: str) -> str | None:
        found = entries.get(key)
        return found.record.values.get("chosen") if found is not None else None

    checkpointing = {stage.id for stage in plan.stages if stage.activation_checkpointing}
    return {stage: entries[key] for stage, key in plan.keys(choice).items() if key is not None and key in entries
            and is_final(entries[key].record, checkpointing=stage in checkpointing)}


def _elsewhere(plan: Plan, held: Mapping[Environment, Mapping[str, StageInput]], there: Collection[str],
               wanted: Mapping[str, str | None]) -> Iterator[str]:
    """What is recorded by another environment class only: shown, never used."""
    for environment, entries in held.items():
        differences = _differences(environment, wanted)
        num_stages = len(set(_recorded(plan, entries)).difference(there)) if differences else 0
        if num_stages:
            yield (f"{num_stages:,} stage{'s are' if num_stages > 1 else ' is'} recorded with {', '.join(differences)}: results "
                   "of another kind of machine or other versions are never mixed in, and are computed again here")


def _held(store: Path | str) -> dict[Environment, dict[str, StageInput]]:
    """The records that a run would not compute again, by environment class and key."""
    found: dict[Environment, dict[str, StageInput]] = {}
    for entry in _entries_at(store) if isinstance(store, str) else _entries_in(store):
        if is_final(entry.record):
            found.setdefault(entry.record.environment, {})[entry.record.key] = entry
    return found


def _entries_in(store: Path) -> Iterator[StageInput]:
    for path in store.glob(f"*/??/*/{RECORD}"):
        try:
            yield StageInput(Record.model_validate_json(path.read_bytes()), path.parent)
        except (OSError, ValueError):
            continue  # damaged, or just being replaced: a run would compute it again, so it is not recorded


def _entries_at(url: str) -> Iterator[StageInput]:
    from finetrial.run.remote_garbage import read_records
    from finetrial.run.remote_store import RemoteStore

    store = RemoteStore(url, trusting=True)
    for record in read_records(store.remote).values():
        yield store.entry(record)


def _wanted(device: str) -> dict[str, str | None]:
    """The environment class that a run on `device` would have: here, or where there is such a device. What only torch knows,
    and has not told a run on this machine before, is left out: the device that `auto` takes where a driver is here, and the
    CPU's instruction set."""
    usual = machine.usual_device()
    asked = usual if device == "auto" else device
    facts = {"device": asked, "cpu_capability": known_cpu_capability() if usual in (None, asked) or asked == "cpu" else None}
    return {**{name: value for name, value in facts.items() if value is not None},
            **{package: _version(package) for package in ("torch", "transformers", "peft")}}


def _differences(environment: Environment, wanted: Mapping[str, str | None]) -> tuple[str, ...]:
    """What of an environment class is another one than a run here would have."""
    return tuple(f"{name} {getattr(environment, name)} instead of {value}" for name, value in wanted.items()
                 if getattr(environment, name) != value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
