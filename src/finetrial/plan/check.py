"""What can be refused before anything runs: lengths beyond the model's, ranks beyond the matrix, slots left behind, metrics
that nobody computes.

Counting trainable parameters from the configuration alone also finds target names that match nothing.
"""

from __future__ import annotations

from finetrial.catalog import name_of
from finetrial.errors import SpecError
from finetrial.plan.bases import ResolvedBase
from finetrial.plan.specs import metrics, output_metrics
from finetrial.plan.unanswerable import unanswerable
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.spec.arm import Arm
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import Study, slot_states


def check_tasks(study: Study) -> None:
    """Raise SpecError for tasks without what the study needs of them: test rows of all, train and val rows of those that a
    phase trains on, the metrics that hypotheses and claims read, outputs to search for, and what comparisons are of."""
    learned = {task: path.name for path in (*study.control_paths, *study.paths)
               for phase in path.tasks for task in joined_tasks(phase)}
    problems = []
    for use in study.tasks:
        kind, there = name_of(type(use.task)), " and ".join(use.task.splits)
        missing = [split for split in ("train", "val") if split not in use.task.splits]
        if use.name in learned and missing:
            problems.append(f"tasks.{use.name}: {kind} has {there} rows only, no {' and '.join(missing)} rows, and "
                            f"sequence {learned[use.name]} trains on it; write role: outside (only scored), or give "
                            "files with such rows")
        if "test" not in use.task.splits:
            problems.append(f"tasks.{use.name}: {kind} has {there} rows only; a task needs test rows: give a file for "
                            "them, or one `path`")
        if (use.decoding is not None or use.sampling is not None) and not output_metrics(use):
            problems.append(f"tasks.{use.name}: {'decoding' if use.decoding else 'sampling'} is given, and none of its metrics "
                            f"({', '.join(metrics(use))}) reads outputs, so that none are made; name one that does, or leave it out")
    problems += [*_not_validated(study), *_selected_by_no_metric(study), *_metrics(study), *unanswerable(study)]
    if problems:
        raise SpecError(f"study {study.name}", problems)


def check_arm(study: Study, arm: Arm, base: ResolvedBase) -> None:
    """Raise SpecError with every reason why this arm cannot run on this base."""
    problems = [*_lengths(study, arm, base), *_slots(study, arm)]
    for path in study.paths:
        for task in dict.fromkeys(path.tasks):
            for component in arm.for_task(task):
                if component.method is not None:
                    component.method.count_trainable(dict(base.config))  # raises UserError for targets and ranks
    if arm.match is not None and arm.match.solved is None:
        problems.append("its match is not solved; call finetrial.plan.matched.matched before the plan is built")
    if problems:
        raise SpecError(f"arm {arm.name} on base {base.name}", problems)


def _not_validated(study: Study) -> list[str]:
    if "val" in study.evaluation.splits:
        return []
    tuned = {arm.name: list(arm.rates(phase)) for path in study.every_path for phase in path.tasks for arm in study.arms_along(path)
             if len(arm.rates(phase)) > 1 and study.selection_metric(phase) == NATS_PER_TOKEN}
    return [f"evaluation.splits leaves out 'val', whose losses choose among the learning rates of {name} ({rates}); add it, or give one "
            "rate" for name, rates in tuned.items()]


def _selected_by_no_metric(study: Study) -> list[str]:
    phases = list(dict.fromkeys(phase for path in study.every_path for phase in path.tasks))
    if study.evaluation.select_by == "loss" or any(study.selection_metric(phase) != NATS_PER_TOKEN for phase in phases):
        return []
    primary = {use.name: use.primary_metric for use in study.tasks if use.role == "learn"}
    return ["evaluation.select_by is 'metric', and no primary metric of what is learned reads outputs (" +
            ", ".join(f"{task}: {metric}" for task, metric in primary.items()) + "), so that the loss would pick every rate; write "
            "'loss', or name only metrics of outputs in a task's `metrics`, the one that decides first (nats per token is computed anyway)"]


def _metrics(study: Study) -> list[str]:
    readers = {f"{kind} {reader.name}": reader.contrasts
               for kind, of_kind in (("hypothesis", study.hypotheses), ("claim", study.claims)) for reader in of_kind}
    computed = {use.name: metrics(use) for use in study.tasks}
    return [f"{who}: {one.metric} is none of the metrics of {one.task} ({', '.join(computed[one.task])}); name it in that "
            "task's `metrics`" for who, contrasts in readers.items() for one in contrasts
            if one.metric and one.task and one.metric not in computed[one.task]]


def _lengths(study: Study, arm: Arm, base: ResolvedBase) -> list[str]:
    rooms = [(use, use.max_tokens or study.training.sequence_length) for use in study.tasks
             if output_metrics(use) and base.form == "decoder"]
    full = [f"tasks.{use.name}.max_new_tokens is {use.max_new_tokens}, which leaves no room for a prompt in {room} tokens; lower it, or "
            "raise the task's max_tokens (by default the sequence_length)" for use, room in rooms if use.max_new_tokens >= room]
    limit = base.max_positions
    if limit is None:
        return full
    wanted = {"training.sequence_length": study.training_of(arm).sequence_length}
    wanted |= {f"tasks.{use.name}.max_tokens": use.max_tokens for use in study.tasks if use.max_tokens}
    return full + [f"{name} is {length}, but {base.name} has positions for {limit} tokens; use at most {limit}"
                   for name, length in wanted.items() if length > limit]


def _slots(study: Study, arm: Arm) -> list[str]:
    problems = []
    for path in study.paths:
        if arm not in study.arms_along(path):
            continue
        for task in path.tasks:
            names = [component.slot for component in arm.for_task(task)]
            if not names:
                problems.append(f"no components for task {task!r} in sequence {path.name}")
            problems += [f"slot {name!r} is listed twice for task {task!r}" for name in sorted(set(names))
                         if names.count(name) > 1]
        try:
            slot_states(arm, path)
        except ValueError as error:
            problems.append(f"sequence {path.name}: {error}")
    return list(dict.fromkeys(problems))
