"""The stages that generate outputs and score them: for test items at the chosen rate, and where rates are selected by what is
written, for validation items at every rate."""

from __future__ import annotations

from typing import Any

from finetrial.plan import specs
from finetrial.plan.lines import OF_TEST_ROWS, Builder, Line
from finetrial.plan.plan import PlannedOutputs, PredictionOf
from finetrial.spec.slots import joined_tasks
from finetrial.spec.uses import TaskUse
from finetrial.stages.base import Source


def outputs_at_chosen(line: Line, seed: int, index: int) -> None:
    """What the arm generates after a phase, at the rate that was picked, for every task that generates."""
    builder, base, run = line.builder, line.base, line.run
    model = line.chosen(seed, index)
    group = line.owner(seed, f"phase-{index}-outputs")
    for use in builder.study.evaluated_along(line.path):
        if not specs.output_metrics(use):
            continue
        data, latest = builder.data[base.name, use.name], None
        for routing in builder.study.evaluation.routings:
            if routing in line.routings(index, use.name) or latest is None:
                name = f"{group}/{use.name}-test{'' if routing == 'latest' else '-' + routing}"
                spec = {**specs.model(base, builder.resolved), **specs.ends(base), **routed(routing, use.name),
                        **specs.decoding(builder.study, use, seed, run.replicate)}
                generate = builder.add("generate", name, spec, {"model": model, "data": data}, group=group,
                                       label=f"{run.arm.title}, seed {seed}, answers {use.name}",
                                       locations={"base": str(base.folder)})
                latest = generate, score_outputs(builder, name, use, {"outputs": generate, "data": data}, group)
            at = line.at_chosen(seed, index, PredictionOf(use.name, "test", routing))
            builder.outputs.append(PlannedOutputs(**at, generate=latest[0], score=latest[1]))


def validation_outputs(line: Line, seed: int, rate: float, index: int, train: str, label: str) -> None:
    """What is written at one rate for validation items of the tasks that phase `index` trained, and its score."""
    builder, base = line.builder, line.base
    for use in map(builder.study.task, joined_tasks(line.path.tasks[index - 1])):
        data, name = builder.data[base.name, use.name], line.validation_name(seed, f"{rate:g}", index, use.name)
        spec = {**specs.model(base, builder.resolved), **specs.ends(base),
                **specs.decoding(builder.study, use, seed, line.run.replicate, split="val")}
        group = name.rpartition("/")[0]
        generate = builder.add("generate", name, spec, {"model": train, "data": data}, group=group, ignores=OF_TEST_ROWS,
                               label=f"{label}, answers {use.name} (val)", locations={"base": str(base.folder)})
        score = score_outputs(builder, name, use, {"outputs": generate, "data": data}, group, split="val")
        builder.outputs.append(PlannedOutputs(
            base=base.name, arm=line.run.name, sequence=line.path.name, seed=seed, phase=index,
            of=PredictionOf(use.name, "val"), points={"": line.point(rate)}, generate=generate, score=score))


def score_outputs(builder: Builder, name: str, use: TaskUse, inputs: dict[str, Source], group: str = "",
                  split: str = "test") -> str:
    """Score outputs, or without them the floors; those for validation items by the primary metric alone, which chooses. Programs
    are run first, in a process that holds no model."""
    label, ignores = name.rpartition("/")[2], () if split == "test" else OF_TEST_ROWS
    metrics = specs.scored(use) if split == "test" else [specs.primary_scorer(use)]
    if specs.executes(metrics):
        spec = specs.execution(use, split)
        executed = builder.add("execute", name, spec, inputs, label=f"run {label}", ignores=ignores)
        inputs, group = {**inputs, "executed": executed}, ""
    return builder.add("score", name, {"split": split, "metrics": metrics}, inputs, group=group, label=f"score {label}",
                       ignores=ignores)


def routed(routing: str, task: str) -> dict[str, Any]:
    """What names a routing in the spec of a stage that asks a model."""
    return {} if routing == "latest" else {"routing": routing, "task": task}
