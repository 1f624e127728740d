"""A forecast for people: memory by arm, what fits, disk and time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetrial.analysis.numbers import UNKNOWN, bytes_text, plain
from finetrial.plan.forecast.duration import Time
from finetrial.plan.forecast.memory import Need
from finetrial.plan.forecast.study import ArmForecast, Resources

IN_A_STEP = ("gradients", "activations", "logits")


def render_resources(found: Resources) -> RenderableType:
    """The section `Forecast` of `finetrial plan`."""
    parts: list[RenderableType] = [Text("Forecast", style="bold"), _memory(found)]
    parts += [Text(f"{title}: {_mends(arm)}") for title, arm in _alike(found.arms) if arm.verdict == "does not fit"]
    parts += [Text(f"{title}: in stacks of {arm.stack}, as many as are ready") for title, arm in _alike(found.arms) if arm.stack > 1]
    parts.append(_rest(found))
    parts += [Text(f"assumed: {text}", style="dim") for text in found.assumed]
    return Group(*parts)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{plain(seconds, 2)} s"
    return f"{plain(seconds / 60, 2)} min" if seconds < 7200 else f"{plain(seconds / 3600, 2)} h"


def _memory(found: Resources) -> Table:
    """A row for each arm and base; arms that need the same share one."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(f"Memory to train{_each(found)}", overflow="fold")
    for column in ("Weights", "Optimizer", "In a step", "Peak"):
        table.add_column(column, justify="right", no_wrap=True)
    if found.available_bytes is not None:
        table.add_column(found.device, no_wrap=True)
    for title, arm in _alike(found.arms):
        table.add_row(title, *_bytes(arm.need), *([arm.verdict or ""] if found.available_bytes is not None else []))
    return table


def _each(found: Resources) -> str:
    if found.processes == 1:
        return ""
    return f", each of {found.processes} processes{' with its part of the model' if found.split else ''}"


def _alike(arms: Sequence[ArmForecast]) -> list[tuple[str, ArmForecast]]:
    """One arm of those on one base that show the same, with a title for all of them."""
    several = len({arm.base for arm in arms}) > 1
    groups: dict[object, list[ArmForecast]] = {}
    for arm in arms:
        groups.setdefault((arm.base, _bytes(arm.need), _mends(arm), arm.stack), []).append(arm)
    return [(f"{f'{first.base}: ' if several else ''}{first.title}{f', and {len(rest)} like it' if rest else ''}", first)
            for first, *rest in groups.values()]


def _bytes(need: Need | None) -> tuple[str, str, str, str]:
    if need is None:
        return UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
    step = sum(need.parts[name] for name in IN_A_STEP)
    return bytes_text(need.parts["weights"]), bytes_text(need.parts["optimizer"]), bytes_text(step), bytes_text(need.peak)


def _mends(arm: ArmForecast) -> str:
    if not arm.changes:
        return "no smaller batch, shorter row or adapter of this arm fits"
    return "; or ".join(f"{change.text}: {bytes_text(change.peak)}" for change in arm.changes)


def _rest(found: Resources) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("to predict", _peak(found, found.prediction))
    if found.probes:
        table.add_row("to probe", _peak(found, found.probe))
    if found.generates:
        table.add_row("to generate", _peak(found, found.generation))
    table.add_row("disk", f"{bytes_text(found.disk_bytes)} to store" if found.disk_bytes is not None else UNKNOWN)
    table.add_row("time", _time(found.time))
    return table


def _peak(found: Resources, need: Need | None) -> str:
    if need is None:
        return UNKNOWN
    beyond = found.available_bytes is not None and need.peak > found.available_bytes
    return f"{bytes_text(need.peak)}{f', more than {found.device}' if beyond else ''}"


def _time(time: Time) -> str:
    if not time.source:
        return f"{UNKNOWN}: these arms have not been timed here; finetrial profile STUDY times them, or --rate says what matrix products reach" \
            if time.unknown else "nothing is left to do"
    more = f", and {_joined(time.unknown)} stages of unknown time" if time.unknown else ""
    return f"at most {duration(time.seconds)} one stage at a time, by {time.source}{more}"


def _joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
