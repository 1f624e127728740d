"""The study with its matches solved (`spec/match.py`): the option or the budget of an arm at which it costs what another
arm costs.

    study = matched(study, recorded=lambda plan: ...)     before `build`, which refuses a match that is open

Parameters and operations are counted from config.json; a time comes from recorded profiles. Where no value is within
2 %, the neighbours on both sides become arms: the nearer one keeps the name, so that hypotheses go on to name it, the
other is called `<name>-below` or `<name>-above`. What was solved is kept in the arm's `match`, and not solved again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.errors import ModelError, SpecError, unknown
from finetrial.methods.base import Method
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.build import build
from finetrial.plan.match import TOLERANCE, nearest_values
from finetrial.plan.plan import Plan
from finetrial.plan.unit_costs import UnitCost, operations_of, seconds_of
from finetrial.spec.arm import Arm, Component
from finetrial.spec.io import parse_study
from finetrial.spec.match import VALUE, Match, Quantity, Solved
from finetrial.spec.study import Study
from finetrial.stages.base import StageInput

TIME: Quantity = "train_time"
Records = Callable[[Plan], Mapping[str, StageInput]]  # what the store holds of a plan, by stage


@dataclass(frozen=True)
class _Candidate:
    """An arm with a value set."""

    arm: Arm
    solved: Solved

    @property
    def off(self) -> float:
        """What is left over on the base where that is most."""
        return max((self.solved.off(base) for base in self.solved.own), key=abs)


def matched(study: Study, *, recorded: Records, relative_to: Path | None = None, fetch: bool = True) -> Study:
    """The study with every match solved; `recorded` is asked only where one is on training time.

    Raises SpecError for a match that cannot be, ModelError where the numbers of a method or base are not known, and
    UserError where profiles are needed and not recorded.
    """
    study = matched_untimed(study, relative_to=relative_to, fetch=fetch)
    timed = _open(study, [TIME])
    if not timed:
        return study
    plan = build(without_open_matches(study), relative_to=relative_to, fetch=fetch)
    cost = seconds_of(study, plan, recorded(plan))
    return _replaced(study, {arm.name: _by_budget(study, arm, [base.name for base in study.bases], cost)
                             for arm in timed})


def matched_untimed(study: Study, *, relative_to: Path | None = None, fetch: bool = True) -> Study:
    """The study with every match solved that needs no measurement; one that was solved before must still hold.

    Raises SpecError where the arms have changed since.
    """
    solve = {"parameters": _by_parameters, "tokens": _by_tokens, "flops": _by_operations}
    asked = [(arm, wanted) for arm, wanted in _matches(study.arms) if wanted.quantity in solve]
    if not asked:
        return study
    bases = {base.name: resolve_base(base, relative_to, fetch=fetch) for base in study.bases}
    found = {arm.name: solve[wanted.quantity](study, arm, bases) for arm, wanted in asked}
    for arm, wanted in asked:
        if wanted.solved is not None:
            _still_holds(arm, wanted.solved, found.pop(arm.name))
    return _replaced(study, found) if found else study


def _still_holds(arm: Arm, solved: Solved, candidates: Iterable[_Candidate]) -> None:
    """Raise SpecError unless the arm is one of those that solving its match gives now."""
    if not any(one.solved == solved and (one.arm.components, one.arm.training) == (arm.components, arm.training)
               for one in candidates):
        raise _refusal(arm, f"it was solved with {_match_of(arm).option or 'a budget of'} {solved.value}, and the arms have "
                            "changed since; remove `solved` to solve it again")


def without_open_matches(study: Study) -> Study:
    """The study with arms of open matches as they are written, which is enough to measure them: a profile does not
    depend on the budget."""
    arms = [arm.model_copy(update={"match": None}) if arm.match and arm.match.solved is None else arm
            for arm in study.arms]
    return study.model_copy(update={"arms": tuple(arms)})


def _open(study: Study, quantities: Iterable[str]) -> list[Arm]:
    return [arm for arm, match in _matches(study.arms) if match.solved is None and match.quantity in quantities]


def _matches(arms: Iterable[Arm]) -> list[tuple[Arm, Match]]:
    return [(arm, arm.match) for arm in arms if arm.match is not None]


def _match_of(arm: Arm) -> Match:
    assert arm.match is not None
    return arm.match


# Trained parameters


def _by_parameters(study: Study, arm: Arm, bases: Mapping[str, ResolvedBase]) -> list[_Candidate]:
    """Of the phase that trains most, on both sides."""
    wanted, other = _match_of(arm), study.arm(_match_of(arm).arm)
    component = _component_with_option(arm)
    assert component.method is not None
    found: dict[str, dict[int, tuple[Method, int, int]]] = {}
    for name, base in bases.items():
        target = max(_count(arm, other.trained_methods(task), base) for task in _phases(study, other))
        beside = max(_count(arm, [one.trained for one in arm.for_task(task) if one.trained and one != component], base)
                     for task in _phases(study, arm) if component in arm.for_task(task))
        tried = nearest_values(component.method, wanted.option, target, base.config, beside=beside)
        found[name] = {one.value: (one.method, one.trainable, target) for one in tried}
    candidates = []
    for value in _same_values(arm, found):
        method = next(iter(found.values()))[value][0]
        components = {task: tuple(one.model_copy(update={"method": method}) if one == component else one for one in listed)
                      for task, listed in arm.components.items()}
        solved = Solved(value=value, own={name: at[value][1] for name, at in found.items()},
                        other={name: at[value][2] for name, at in found.items()})
        candidates.append(_Candidate(arm.model_copy(update={"components": components}), solved))
    return candidates


def _component_with_option(arm: Arm) -> Component:
    """The one whose method has the option; in several phases it may stand, if it is the same."""
    wanted = _match_of(arm)
    name = wanted.option.partition(".")[0]
    every = [(one, type(one.method).model_fields) for listed in arm.components.values() for one in listed
             if one.method is not None and wanted.slot in ("", one.slot)]
    having = [one for one, options in every if name in options]
    if not having:
        known = {option for _, options in every for option in options}
        slots = {one.slot for listed in arm.components.values() for one in listed}
        raise _refusal(arm, unknown("option", name, known) if every else unknown("slot", wanted.slot, slots))
    if any(one != having[0] for one in having):
        slots = {one.slot for one in having}
        mend = "name one: slot: ..." if len(slots) > 1 else "it must be the same in every phase"
        raise _refusal(arm, f"{name} is an option of several components (slots {', '.join(sorted(slots))}); {mend}")
    return having[0]


def _count(arm: Arm, methods: Iterable[Method], base: ResolvedBase) -> int:
    """What methods train together. Raises ModelError where that is not known."""
    total = 0
    for method in methods:
        number = method.count_trainable(base.config)
        if number is None:
            raise ModelError(f"arm {arm.name}: match: the number of parameters that {method.kind} trains on {base.name} "
                             "is not known without the model", "match another arm, or set the options yourself")
        total += number
    return total


# Budgets


def _by_tokens(study: Study, arm: Arm, bases: Mapping[str, ResolvedBase]) -> list[_Candidate]:
    """The other arm's budget, which must be in tokens."""
    other = _match_of(arm).arm
    budget = study.training_of(study.arm(other)).budget
    if budget.unit != "tokens":
        raise _refusal(arm, f"the budget of {other} is {budget}, and how many tokens that is depends on the data; write "
                            "it in tokens, such as training.budget: 40k tokens")
    amounts = dict.fromkeys(bases, budget.amount)
    return [_Candidate(_with_budget(study, arm, budget.amount, "tokens"),
                       Solved(value=budget.amount, own=dict(amounts), other=dict(amounts)))]


def _by_operations(study: Study, arm: Arm, bases: Mapping[str, ResolvedBase]) -> list[_Candidate]:
    return _by_budget(study, arm, list(bases), operations_of(study, arm, bases))


def _by_budget(study: Study, arm: Arm, bases: Sequence[str], cost: UnitCost) -> list[_Candidate]:
    """The arm's budget, in the unit that it has, at which all its phases cost what those of the other arm do."""
    other, own_unit = study.arm(_match_of(arm).arm), study.training_of(arm).budget.unit
    amount = study.training_of(other).budget.amount
    for one in (arm, other):
        if (budget := study.training_of(one).budget).unit == "epochs":
            raise _refusal(arm, f"the budget of {one.name} is {budget}, whose length depends on the data; write it in "
                                "steps or tokens")
    tasks = _phases_of_both(study, arm, other)
    each = {base: sum(cost(base, arm, task) for task in tasks) for base in bases}
    target = {base: amount * sum(cost(base, other, task) for task in tasks) for base in bases}
    found = {base: dict.fromkeys(_nearest(target[base] / each[base])) for base in bases}
    return [_Candidate(_with_budget(study, arm, value, own_unit),
                       Solved(value=value, own={base: _short(value * each[base]) for base in bases},
                              other={base: _short(target[base]) for base in bases}))
            for value in _same_values(arm, found)]


def _nearest(value: float) -> list[int]:
    """The whole number, if it is within the tolerance of a value; else those on both sides, from 1 on."""
    best = max(1, round(value))
    if abs(best / value - 1) <= TOLERANCE:
        return [best]
    return sorted({max(1, math.floor(value)), math.ceil(value)})


def _with_budget(study: Study, arm: Arm, amount: int, unit: str) -> Arm:
    settings = study.training_of(arm)
    budget = settings.budget.model_copy(update={"amount": amount, "unit": unit})
    training = settings.model_copy(update={"budget": budget})
    return arm.model_copy(update={"training": None if training == study.training else training})


def _short(amount: float) -> float:
    """Six digits, which is more than any of these counts is good for."""
    return float(f"{amount:.6g}")


# Both


def _phases(study: Study, arm: Arm) -> list[str]:
    return list(dict.fromkeys(task for path in study.paths if arm in study.arms_along(path) for task in path.tasks))


def _phases_of_both(study: Study, arm: Arm, other: Arm) -> tuple[str, ...]:
    """Along the first sequence that both arms go."""
    for path in study.paths:
        if {arm.name, other.name} <= {one.name for one in study.arms_along(path)}:
            return path.tasks
    raise _refusal(arm, f"{arm.name} and {other.name} go along no sequence together")


def _same_values(arm: Arm, by_base: Mapping[str, Iterable[int]]) -> list[int]:
    """The values that were found, which must be the same on every base."""
    listed = {base: sorted(values) for base, values in by_base.items()}
    if len({tuple(values) for values in listed.values()}) > 1:
        said = "; ".join(f"{base}: {' or '.join(map(str, values))}" for base, values in listed.items())
        raise _refusal(arm, f"each base needs a value of its own ({said}), and an arm is the same on all of them; write "
                            "a study for each base")
    return next(iter(listed.values()))


def _refusal(arm: Arm, problem: str) -> SpecError:
    return SpecError(f"arm {arm.name}", [f"match: {problem}"])


def _replaced(study: Study, solved: Mapping[str, list[_Candidate]]) -> Study:
    arms = [new for arm in study.arms for new in (_named(arm, solved[arm.name]) if arm.name in solved else [arm])]
    content = {name: getattr(study, name) for name in study.model_fields_set}
    return parse_study({**content, "arms": arms}, f"{study.name}, matched")


def _named(arm: Arm, candidates: list[_Candidate]) -> list[Arm]:
    """The nearest under the arm's name, then the other one, if there is one, under a name of its own."""
    found, wanted = [], _match_of(arm)
    for place, one in enumerate(sorted(candidates, key=lambda one: abs(one.off))):
        changes: dict[str, Any] = {"match": wanted.model_copy(update={"solved": one.solved})}
        if place:
            changes["name"] = f"{arm.name}-{'below' if one.off < 0 else 'above'}"
            if VALUE not in arm.label:
                changes["label"] = f"{arm.title} ({wanted.option or 'budget'} {one.solved.value})"
        found.append(one.arm.model_copy(update=changes))
    return found
