"""The study: question, bases, tasks, sequences, arms, controls, hypotheses, budget.

One schema for built-in studies (Python functions that return a `Study`) and users' (`study.yaml`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from finetrial import catalog
from finetrial.errors import unknown
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.spec.arm import Arm, Controls, unmatchable
from finetrial.spec.claims import PublishedClaim
from finetrial.spec.evaluation import Evaluation
from finetrial.spec.hypothesis import FLOOR, MATCHED, Contrast, Hypothesis
from finetrial.spec.model import Frozen
from finetrial.spec.slots import JOINT, State, advance, joined_tasks
from finetrial.spec.uses import NAME, Base, TaskUse
from finetrial.train.config import Training

FEWEST_SEEDS = 3  # that give an interval
BASE_ARM = "base"  # the untouched model, phase 0


class Sequence(Frozen):
    """Tasks in the order in which an arm learns them; `a+b` trains on both in one phase."""

    name: str = Field(pattern=NAME)
    tasks: tuple[str, ...] = Field(min_length=1)
    evaluate: tuple[str, ...] = ()  # the tasks that are scored along it; empty = all that are evaluated


def slot_states(arm: Arm, path: Sequence) -> list[State]:
    """What the arm's slots hold after each phase of a sequence. Raises ValueError for a broken rule of carry."""
    state, found = State(), []
    for phase, task in enumerate(path.tasks, start=1):
        state, _ = advance(state, phase, task, [component.spec() for component in arm.for_task(task)])
        found.append(state)
    return found


def _can_go(arm: Arm, path: Sequence) -> bool:
    try:
        slot_states(arm, path)
    except ValueError:
        return False
    return True


class Limits(Frozen):
    """What an arm may cost to be recommended; None = no limit."""

    max_trainable: int | None = Field(default=None, ge=1)  # trained parameters
    max_trainable_share: float | None = Field(default=None, gt=0, le=1)  # of the base's parameters
    max_memory_bytes: int | None = Field(default=None, ge=1)  # peak of training: the device's, on a CPU the host's
    max_forgetting: float | None = Field(default=None, ge=0)  # nats per token of outside text, above the base
    max_forgetting_share: float | None = Field(default=None, ge=0)  # the same, of the base's loss there


class Study(Frozen):
    """A controlled trial."""

    name: str = Field(pattern=NAME)
    question: str
    scale: Literal["embedded", "full", "custom"] = "custom"
    size: str = Field(default="standard", pattern=NAME)  # with name and scale the name of the run's folder
    bases: tuple[Base, ...] = Field(min_length=1)
    tasks: tuple[TaskUse, ...] = Field(min_length=1)
    sequences: tuple[Sequence, ...] = ()
    arms: tuple[Arm, ...] = Field(min_length=1)
    controls: Controls | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    claims: tuple[PublishedClaim, ...] = ()  # what an earlier report said, tested here; no part of any stage
    training: Training
    evaluation: Evaluation = Evaluation()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    looks: tuple[int, ...] = ()  # numbers of seeds at which results will be read; empty = once
    factors: tuple[str, ...] = ("method",)  # what arms may differ in
    limits: Limits = Limits()  # of the recommendation: they change no result
    accept_threats: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, **content: Any) -> None:
        """Raises SpecError with every problem in words, as reading a file does."""
        from finetrial.spec.io import spec_error

        try:
            super().__init__(**content)
        except ValidationError as error:
            raise spec_error(f"study {content.get('name', '')}".strip(), error, content) from None

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if value < 1:
            raise ValueError("a study needs a seed at least, and 3 for an interval; a number stands for so many seeds, and "
                             "seed 0 alone is [0]")
        return tuple(range(value))

    @field_validator("plugins", mode="before")
    @classmethod
    def _one_or_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("looks")
    @classmethod
    def _possible_looks(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value) or any(seeds < FEWEST_SEEDS for seeds in value):
            raise ValueError(f"looks {list(value)} are not different numbers of at least {FEWEST_SEEDS} seeds, such as "
                             "[3, 5, 10]")
        return tuple(sorted(value))

    @field_validator("sequences", mode="before")
    @classmethod
    def _lists_of_tasks(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return tuple({"name": "-".join(item), "tasks": item} if isinstance(item, (list, tuple)) else item
                     for item in value)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        problems = [*self._duplicates(), *self._unknown_names()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def control_paths(self) -> tuple[Sequence, ...]:
        """The sequences that the controls add: every task alone, all tasks jointly."""
        controls, made = self.controls, dict[tuple[str, ...], Sequence]()
        present = {path.tasks for path in self.paths}
        for path in self.paths if controls is not None else ():
            if len(path.tasks) > 1 and controls is not None and controls.single_task:
                made |= {(task,): Sequence(name=f"only-{task}", tasks=(task,)) for task in path.tasks[1:]}
            if len(path.tasks) > 1 and controls is not None and controls.joint:
                together = JOINT.join(dict.fromkeys(path.tasks))
                made.setdefault((together,), Sequence(name=f"joint-{path.name}", tasks=(together,)))
        return tuple(path for tasks, path in made.items() if tasks not in present)

    @property
    def paths(self) -> tuple[Sequence, ...]:
        """The sequences; without any, one that learns every `learn` task in the order given."""
        if self.sequences:
            return self.sequences
        learned = tuple(use.name for use in self.tasks if use.role == "learn")
        return (Sequence(name="-".join(learned), tasks=learned),)

    @property
    def every_path(self) -> tuple[Sequence, ...]:
        """The sequences, then those that the controls add."""
        return (*self.paths, *self.control_paths)

    def path(self, name: str) -> Sequence:
        """The sequence called `name`, be it one that the controls add. Raises KeyError if there is none."""
        for path in self.every_path:
            if path.name == name:
                return path
        raise KeyError(name)

    def arms_along(self, path: Sequence) -> tuple[Arm, ...]:
        """The arms that go along a sequence; along one that the controls add, those whose rules of carry allow it."""
        if path in self.paths:
            return tuple(arm for arm in self.arms if not arm.sequences or path.name in arm.sequences)
        return tuple(arm for arm in self.arms if not arm.sequences and _can_go(arm, path))

    def evaluated_along(self, path: Sequence) -> tuple[TaskUse, ...]:
        """The tasks that are scored along a sequence."""
        return tuple(use for use in self.tasks if use.evaluate and (not path.evaluate or use.name in path.evaluate))

    def task(self, name: str) -> TaskUse:
        """The task called `name`."""
        return next(use for use in self.tasks if use.name == name)

    def arm(self, name: str) -> Arm:
        """The arm called `name`."""
        return next(arm for arm in self.arms if arm.name == name)

    def training_of(self, arm: Arm) -> Training:
        """The training settings of an arm: its own, or the study's."""
        return arm.training or self.training

    def selection_metric(self, phase: str) -> str:
        """The metric by which validation picks the rate of the phase that trains on a task: nats per token, unless rates are
        selected by metric and all tasks of the phase share a primary one that reads outputs."""
        metrics = {self.task(task).primary_metric for task in joined_tasks(phase)}
        if self.evaluation.select_by == "metric" and len(metrics) == 1:
            metric = metrics.pop()
            if catalog.find("scorer", metric).needs == "outputs":  # type: ignore[attr-defined]
                return metric
        return NATS_PER_TOKEN

    def at_every_rate(self, arm: str) -> bool:
        """Whether an arm is evaluated on everything at every rate of its grid. Controls are read at fixed rates."""
        named = (self.controls.reference, self.controls.positive and self.controls.positive.arm) if self.controls else ()
        return self.evaluation.rates == "all" or arm in named

    def _duplicates(self) -> Iterable[str]:
        groups = {"base": [b.name for b in self.bases], "task": [t.name for t in self.tasks],
                  "arm": [a.name for a in self.arms], "sequence": [s.name for s in self.sequences],
                  "hypothesis": [h.name for h in self.hypotheses], "claim": [c.name for c in self.claims], "seed": [str(s) for s in self.seeds]}
        for kind, names in groups.items():
            for name in sorted({name for name in names if names.count(name) > 1}):
                yield f"{kind} {name!r} is given twice"

    def _unknown_names(self) -> Iterable[str]:
        tasks = [use.name for use in self.tasks]
        learned = [use.name for use in self.tasks if use.role == "learn"]
        arms = [arm.name for arm in self.arms]
        if BASE_ARM in arms:
            yield f"arm name {BASE_ARM!r} is reserved for the untouched model"
        if not learned:
            yield "no task has role: learn; leave `role: outside` out where a task shall be trained on"
            return
        for path in self.sequences:
            yield from (f"sequence {path.name}: " + unknown("task to learn", name, learned)
                        for phase in path.tasks for name in joined_tasks(phase) if name not in learned)
            yield from (f"sequence {path.name}: evaluate: " + unknown("task", name, tasks)
                        for name in path.evaluate if name not in tasks)
        for arm in self.arms:
            for what, names in (("components", {*arm.components} - {"*"}), ("num_train", {*arm.num_train} - {"*"}),
                                ("learning_rates_for", {*arm.learning_rates_for})):
                yield from (f"arm {arm.name}: {what} for " + unknown("task", name, learned)
                            for name in sorted(names.difference(learned)))
            yield from unmatchable(arm, self.arms)
        if self.controls:
            yield from (f"arm name {name!r} is that of the {what}; call the arm something else" for name, what in (
                (self.controls.aa_name, "A/A control"), (self.controls.positive_name, "positive control")) if name in arms)
            named = [self.controls.reference] + ([self.controls.positive.arm] if self.controls.positive else [])
            yield from ("controls: " + unknown("arm", name, arms) for name in named if name not in arms)
            if self.controls.positive and self.controls.positive.task not in tasks:
                yield "controls.positive: " + unknown("task", self.controls.positive.task, tasks)
        for arm in self.arms:
            yield from (f"arm {arm.name}: " + unknown("sequence", name, [path.name for path in self.paths])
                        for name in arm.sequences if name not in [path.name for path in self.paths])
        for hypothesis in self.hypotheses:
            for contrast in hypothesis.contrasts:
                yield from (f"hypothesis {hypothesis.name}: {text}" for text in self._unknown_in(contrast))
                yield from (f"hypothesis {hypothesis.name}: {text}" for text in self._not_at_every_rate(contrast))
        for claim in self.claims:
            for contrast in claim.contrasts:
                yield from (f"claim {claim.name}: {text}" for text in self._unknown_in(contrast))
                yield from (f"claim {claim.name}: {text}" for text in self._not_at_every_rate(contrast))
            if claim.seed is not None and claim.as_published is not None and claim.seed not in self.seeds:
                yield f"claim {claim.name}: seed {claim.seed} is none of the study's ({', '.join(map(str, self.seeds))})"

    def _not_at_every_rate(self, contrast: Contrast) -> Iterable[str]:
        if contrast.quantity == MATCHED:
            yield from (f"{MATCHED} needs {side.arm} at every learning rate, and evaluation.rates is 'chosen'; write 'all'"
                        for side in contrast.sides if not self.at_every_rate(side.arm))

    def _unknown_in(self, contrast: Contrast) -> Iterable[str]:
        arms = [BASE_ARM, *(arm.name for arm in self.arms)]
        tasks = [use.name for use in self.tasks]
        bases, paths = [base.name for base in self.bases], [path.name for path in self.paths]
        lengths = {path.name: len(path.tasks) for path in self.every_path}
        yield from (unknown("arm", side.arm, arms) for side in contrast.sides
                    if side.arm not in arms and not side.arm.startswith(FLOOR))
        yield from (unknown("task", name, tasks) for name in (contrast.task, contrast.learned)
                    if name and name not in tasks)
        yield from (unknown("base", side.base, bases) for side in contrast.sides
                    if side.base and side.base not in bases)
        if len(bases) > 1 and not all(side.base for side in contrast.sides):
            yield f"name the base: one of {', '.join(bases)}"
        yield from (unknown("sequence", side.sequence, lengths) for side in contrast.sides
                    if side.sequence and side.sequence not in lengths)
        if len(paths) > 1 and not all(side.sequence for side in contrast.sides):
            yield f"name the sequence: one of {', '.join(paths)}"
        yield from (f"phase {contrast.phase} of the sequence {name}, which has {lengths[name]}"
                    for name in dict.fromkeys(side.sequence or paths[0] for side in contrast.sides)
                    if contrast.phase is not None and contrast.phase > lengths.get(name, contrast.phase))
