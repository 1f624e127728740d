"""A plan for people: the grid, what each arm trains, the stages by kind and how many of them are recorded.

`summarise` makes plain data from a study and its plan (also for `--json`), `render` makes lines and tables of it for a
terminal. No torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetrial.analysis.numbers import rate
from finetrial.plan.audit import audit, audit_plan
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.build import ArmRun, arm_runs
from finetrial.plan.forecast.show import render_resources
from finetrial.plan.forecast.study import Resources
from finetrial.plan.plan import Plan
from finetrial.plan.power import Forecast, render_power
from finetrial.plan.specs import output_metrics
from finetrial.records.results import NATS_PER_TOKEN, AuditFinding
from finetrial.spec.study import Study

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ArmSummary:
    """One arm of the grid, controls included."""

    name: str
    title: str
    role: str
    learning_rates: tuple[float, ...]
    trainable: Mapping[str, tuple[int | None, ...]]  # base -> parameters trained in each phase; None = unknown
    num_trainings: int


@dataclass(frozen=True)
class KindSummary:
    """The stages of one kind. `recorded` is None where the store was not asked."""

    kind: str
    planned: int
    recorded: int | None


@dataclass(frozen=True)
class PlanSummary:
    """What a run of the study would do."""

    study: str
    scale: str
    size: str
    question: str
    bases: tuple[str, ...]
    sequences: Mapping[str, tuple[str, ...]]
    outside: tuple[str, ...]
    seeds: tuple[int, ...]
    training: str
    outputs: Mapping[str, str]  # how each task's are made
    selected_by: Mapping[str, str]  # what a phase trains -> the metric of outputs by which its rate is picked, if not by the loss
    arms: tuple[ArmSummary, ...]
    kinds: tuple[KindSummary, ...]
    hypotheses: Mapping[str, str]
    audit: tuple[AuditFinding, ...]
    power: tuple[Forecast, ...]
    notes: tuple[str, ...]
    forecast: Resources | None = None
    matched: Mapping[str, str] = field(default_factory=dict)  # arm -> to which it is matched, on what, and how nearly

    def as_json(self) -> dict[str, Any]:
        """JSON-like content."""
        return {**asdict(self), "audit": [finding.model_dump(mode="json") for finding in self.audit],
                "power": [row.as_json() for row in self.power],
                "forecast": self.forecast.as_json() if self.forecast else None}


def summarise(study: Study, plan: Plan, *, recorded: Collection[str] | None = None,
              relative_to: Path | None = None, power: tuple[Forecast, ...] = (),
              forecast: Resources | None = None, notes: tuple[str, ...] = ()) -> PlanSummary:
    """The summary of a plan. `recorded`: the ids of the stages that the store holds already; `power`: what it could find;
    `forecast`: what it needs; `notes`: what else is to be said of it."""
    bases = [resolve_base(base, relative_to, fetch=False) for base in study.bases]
    return PlanSummary(
        study=study.name, scale=study.scale, size=study.size, question=study.question,
        bases=tuple(base.name for base in bases),
        sequences={path.name: path.tasks for path in study.paths},
        outside=tuple(use.name for use in study.tasks if use.role == "outside"),
        seeds=study.seeds, training=_training(study),
        outputs={use.name: use.decoded for use in study.tasks if use.evaluate and output_metrics(use)},
        selected_by={phase: metric for path in study.paths for phase in path.tasks
                     if (metric := study.selection_metric(phase)) != NATS_PER_TOKEN
                     and any(len(arm.rates(phase)) > 1 for arm in study.arms_along(path))},
        arms=tuple(_arm(study, plan, run, bases) for run in arm_runs(study)),
        kinds=_kinds(plan, recorded),
        hypotheses={hypothesis.name: hypothesis.statement for hypothesis in study.hypotheses},
        audit=(*audit(study), *audit_plan(study, plan)), power=power,
        notes=(*study.notes, *_unfetched(study, bases), *notes), forecast=forecast,
        matched={arm.name: arm.match.sentence for arm in study.arms if arm.match is not None})


def _unfetched(study: Study, bases: Iterable[ResolvedBase]) -> Iterator[str]:
    """What has to be fetched before a run."""
    names = [base.provenance for base in bases if base.provisional]
    names += [use.task.origin for use in study.tasks if use.task.origin and not use.task.is_here]
    if names:
        yield (f"from the hub, fetched before the run (or by finetrial fetch): {', '.join(dict.fromkeys(names))}; until "
               "then keys are provisional")


def _arm(study: Study, plan: Plan, run: ArmRun, bases: Iterable[ResolvedBase]) -> ArmSummary:
    trainable = {base.name: tuple(_trainable(run, task, base) for path in study.paths for task in path.tasks)
                 for base in bases}
    trainings = {phase.train for cell in plan.cells if cell.key.arm == run.name for phase in cell.phases if phase.train}
    title = run.arm.title if run.role == "arm" else f"{run.role}: {run.name}"
    rates = tuple(sorted({rate for path in study.paths for task in path.tasks for rate in run.rates(task)}))
    return ArmSummary(run.name, title, run.role, rates, trainable, len(trainings))


def _trainable(run: ArmRun, task: str, base: ResolvedBase) -> int | None:
    counts = [method.count_trainable(base.config) for method in run.arm.trained_methods(task)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _kinds(plan: Plan, recorded: Collection[str] | None) -> tuple[KindSummary, ...]:
    stages: dict[str, list[str]] = {}
    for stage in plan.stages:
        stages.setdefault(stage.kind, []).append(stage.id)
    return tuple(KindSummary(kind, len(ids), None if recorded is None else sum(name in recorded for name in ids))
                 for kind, ids in stages.items())


def _training(study: Study) -> str:
    training = study.training
    shape = f"{training.batch_sequences} x {training.sequence_length} tokens a step"
    return f"{training.budget} a phase, {shape}, {training.precision}"


def render(summary: PlanSummary) -> RenderableType:
    """What `finetrial plan` prints."""
    parts: list[RenderableType] = [Text(f"{summary.study}, {summary.scale}, {summary.size}", style="bold"),
                                   Text(summary.question), Text(), _setting(summary), Text(), _arms(summary), Text(),
                                   *([_listed("Matched", summary.matched), Text()] if summary.matched else []),
                                   _stages(summary), Text(), _listed("Hypotheses", summary.hypotheses)]
    if summary.forecast:
        parts += [Text(), render_resources(summary.forecast)]
    if summary.power:
        parts += [Text(), render_power(summary.power)]
    parts += [Text(), _audit(summary.audit)]
    if summary.notes:
        parts += [Text(), _listed("Notes", {str(n): text for n, text in enumerate(summary.notes, start=1)})]
    return Group(*parts)


def _setting(summary: PlanSummary) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("bases" if len(summary.bases) > 1 else "base", ", ".join(summary.bases))
    for name, tasks in summary.sequences.items():
        table.add_row("learned", " then ".join(tasks) if len(tasks) > 1 or name == tasks[0]
                      else f"{name}: {tasks[0]}")
    if summary.outside:
        table.add_row("only scored", ", ".join(summary.outside))
    table.add_row("seeds", " ".join(str(seed) for seed in summary.seeds))
    table.add_row("training", summary.training)
    for task, words in summary.outputs.items():
        table.add_row("outputs", f"{task}: {words}")
    for phase, metric in summary.selected_by.items():
        table.add_row("rates", f"{phase}: picked by {metric} of what is written for validation items")
    return table


def _arms(summary: PlanSummary) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Arm", overflow="fold")
    table.add_column("Trained parameters", justify="right", overflow="fold")
    table.add_column("Learning rates", overflow="fold")
    table.add_column("Trainings", justify="right")
    for arm in summary.arms:
        rates = " ".join(rate(value) for value in arm.learning_rates)
        table.add_row(arm.title, _counts(arm.trainable), rates, f"{arm.num_trainings:,}")
    return table


def _counts(trainable: Mapping[str, tuple[int | None, ...]]) -> str:
    """`24,576`; one line a base where they differ; `a to b` where phases differ."""
    texts = {}
    for base, counts in trainable.items():
        known = sorted({count for count in counts if count is not None})
        unknown = len(known) == 0 or None in counts
        ends = () if unknown else dict.fromkeys((known[0], known[-1]))
        texts[base] = " to ".join(f"{count:,}" for count in ends) or UNKNOWN
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "\n".join(f"{base}: {text}" for base, text in texts.items())


def _stages(summary: PlanSummary) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Stages")
    for column in ("Planned", "Recorded", "To do"):
        table.add_column(column, justify="right")
    for row in summary.kinds:
        table.add_row(row.kind, *_numbers(row.planned, row.recorded))
    planned = sum(row.planned for row in summary.kinds)
    asked = [row.recorded for row in summary.kinds if row.recorded is not None]
    table.add_row("all", *_numbers(planned, sum(asked) if asked else None), style="bold")
    return table


def _numbers(planned: int, recorded: int | None) -> tuple[str, str, str]:
    if recorded is None:
        return f"{planned:,}", UNKNOWN, UNKNOWN
    return f"{planned:,}", f"{recorded:,}", f"{planned - recorded:,}"


def _audit(findings: Iterable[AuditFinding]) -> RenderableType:
    """What the audit found; a threat that was not accepted will stop the run."""
    rows: dict[str, str] = {}
    for number, finding in enumerate(findings, start=1):
        state: str = finding.severity
        if state == "threat":
            state += ", accepted" if finding.accepted else f": a run needs --accept-threat {finding.rule}"
        rows[str(number)] = f"{finding.rule} ({state}): {finding.message}"
    return _listed("Threats to validity", rows or {"": "none found in the study"})


def _listed(title: str, rows: Mapping[str, str]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, text)
    return Group(Text(title, style="bold"), table if rows else Text("none"))
