"""Arms may differ in what the study declares as a factor, and in nothing else.

What can differ: the training settings (length, batch, budget, precision, schedule, ...), the rows they are given, how
the base's matrices are held, the options of one and the same method, and, in consequence, the number of updates. Data
order, task, prompt and evaluation cannot: a study has one of each for all arms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.spec.arm import Arm
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import Study
from finetrial.train.config import Training

CAUSES_OF_UPDATES = {"budget", "batch_sequences", "sequence_length", "num_train"}


class UndeclaredDifference(Rule):
    """Whatever differs between arms is declared in `factors`, or as a level in every arm's own `factors`."""

    summary: ClassVar[str] = "arms differ in something that is not declared as a factor"

    def check(self, study: Study) -> Iterator[Found]:
        """One threat for each setting that differs and is not declared."""
        declared = {*study.factors, *set.intersection(*(set(arm.factors) for arm in study.arms))}
        if any(arm.match is not None and arm.match.quantity != "parameters" for arm in study.arms):
            declared.add("budget")  # its length is what is matched by
        told: set[str] = set()
        for option, values in _settings(study).items():
            if {option.rpartition(".")[2], *_wider(option)} & declared or (
                    option == "updates" and told & CAUSES_OF_UPDATES):
                continue
            first, *others = values
            other = next((name for name in others if values[name] != values[first]), None)
            if other is not None:
                told.add(option)
                yield Found("threat", f"{first} has {option} {_said(values[first])}, {other} has "
                                      f"{_said(values[other])}; their difference would mix {option} with the rest",
                            f"arms.{other}")


Values = dict[str, Any]  # arm -> value


def _settings(study: Study) -> dict[str, Values]:
    """Option -> arm -> value, for everything in which arms can differ. Arms without an option are left out of it."""
    found: dict[str, Values] = {}
    tasks = dict.fromkeys(task for path in study.paths for phase in path.tasks for task in joined_tasks(phase))
    for arm in study.arms:
        training = study.training_of(arm)
        rows = {task: arm.rows(task) or study.task(task).num_train for task in tasks}
        own = {**training.identity(), "num_train": rows, "updates": _updates(training, rows),
               "quantization": arm.quantization or "none"}
        for option, value in own.items():
            found.setdefault(option, {})[arm.name] = value
    for kind, options in _method_options(study).items():
        for option, values in options.items():
            found[f"{kind}.{option}"] = values
    return found


def _updates(training: Training, rows: Mapping[str, int | None]) -> Any:
    """What the number of updates follows from: equal values give equal numbers on equal data."""
    if training.budget.unit == "steps":
        return str(training.budget)
    shape = f"{training.budget} at {training.batch_sequences} x {training.sequence_length} tokens a step"
    counted = training.budget.unit == "epochs" and any(number is not None for number in rows.values())
    listed = ", ".join(f"{number or 'all'} rows" for number in rows.values())
    return f"{shape}, {listed}" if counted else shape


def _method_options(study: Study) -> dict[str, dict[str, Values]]:
    """Kind -> option -> arm -> value, for the kinds of methods that several arms share, one instance each."""
    of_kind: dict[str, Values] = {}
    for arm in study.arms:
        for kind, method in _single_methods(arm).items():
            of_kind.setdefault(kind, {})[arm.name] = method.model_dump(mode="json")
    return {kind: {option: {name: values[option] for name, values in arms.items()} for option in next(iter(arms.values()))}
            for kind, arms in of_kind.items() if len(arms) > 1}


def _single_methods(arm: Arm) -> Mapping[str, Any]:
    """The methods of an arm by kind, without kinds that it uses with several options."""
    methods: dict[str, list[Any]] = {}
    for components in arm.components.values():
        for component in components:
            if component.method is not None and component.method not in methods.setdefault(component.method.kind, []):
                methods[component.method.kind].append(component.method)
    return {kind: found[0] for kind, found in methods.items() if len(found) == 1}


def _wider(option: str) -> tuple[str, ...]:
    """Declarations that cover an option."""
    if option == "updates":
        return "training", "budget", "epochs"
    if option in Training.model_fields:
        return ("training",)
    return () if option in ("num_train", "quantization") else ("method",)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {'all' if rows is None else rows}" for name, rows in value.items())
    return str(value)
