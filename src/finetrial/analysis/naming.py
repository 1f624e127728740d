"""Every arm that has records, also those that no study lists, and what people read for each.

Floors carry the name of the rule that made them.
"""

from __future__ import annotations

from collections.abc import Collection

from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.study import BASE_ARM, Sequence, Study

FLOOR_TITLES = {"copy": "the input copied (floor)", "lead-1": "first sentence of the input (floor)",
                "lead-3": "first three sentences of the input (floor)", "constant": "one answer for all (floor)"}


def runs_along(study: Study, path: Sequence) -> list[str]:
    """The names of the arms that go along a sequence, controls included where it is the study's own."""
    along = [arm.name for arm in study.arms_along(path)]
    controls = study.controls
    if controls is None or path not in study.paths:
        return along
    made = {controls.aa_name: controls.reference}
    if controls.positive is not None:
        made[controls.positive_name] = controls.positive.arm
    return [*along, *(name for name, arm in made.items() if arm in along)]


def roles(study: Study, recorded: Collection[str] = ()) -> dict[str, str]:
    """Every arm, floors and controls included, in the order in which people read them. `recorded`: names seen."""
    found = {BASE_ARM: "base", **{name: "floor" for name in _floors(recorded)},
             **{arm.name: "arm" for arm in study.arms}}
    if study.controls:
        if study.controls.positive:
            found[study.controls.positive_name] = "positive control"
        found[study.controls.aa_name] = "A/A"
    return found


def titles(study: Study, recorded: Collection[str] = ()) -> dict[str, str]:
    """What people read for each of `roles`."""
    found = {BASE_ARM: "untouched base", **{arm.name: arm.title for arm in study.arms}}
    for name in _floors(recorded):
        found[name] = FLOOR_TITLES.get(name.removeprefix(FLOOR), f"{name.removeprefix(FLOOR)} (floor)")
    if study.controls:
        positive = study.controls.positive
        if positive:
            found[study.controls.positive_name] = (
                f"{study.arm(positive.arm).title} at {positive.rate_factor:g} times its centre rate")
        found[study.controls.aa_name] = f"{study.arm(study.controls.reference).title}, repeated at its centre rate"
    return {name: found[name] for name in roles(study, recorded)}


def _floors(recorded: Collection[str]) -> list[str]:
    """Copying first, then by name."""
    found = (name for name in recorded if name.startswith(FLOOR))
    return sorted(found, key=lambda name: (name != f"{FLOOR}copy", name))
