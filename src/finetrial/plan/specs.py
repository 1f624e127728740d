"""The specs of stages: what of a study belongs to the identity of each, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial import catalog
from finetrial.fingerprint import key_of
from finetrial.models.shapes import Attention, attention_used
from finetrial.plan.bases import ResolvedBase
from finetrial.records.results import NATS_PER_TOKEN
from finetrial.sandbox.languages import runtime_version
from finetrial.spec.arm import Arm
from finetrial.spec.model import plugin_identity
from finetrial.spec.slots import Carry, State, joined_tasks
from finetrial.spec.study import Study
from finetrial.spec.uses import TaskUse
from finetrial.tasks.base import SPLITS
from finetrial.tasks.chat import VERSION as CHAT_VERSION
from finetrial.tasks.flaws import NO_FLAWS
from finetrial.train.config import BITSANDBYTES, EIGHT_BIT, Budget, Training


@dataclass(frozen=True)
class Resolved:
    """What the machine decides and the key must know: it changes the last bits of the results."""

    attention: Attention = "sdpa"
    threads: int = 1


def data(study: Study, base: ResolvedBase, use: TaskUse, relative_to: Path | None) -> tuple[dict[str, Any], str]:
    """(spec, the task as written with its paths). Paths are told apart from identity: data is known by its digest."""
    task = use.task.located(relative_to)
    written = plugin_identity(task)
    identity = {name: value for name, value in written.items() if name not in task.path_options}
    spec = {"task": {**identity, **catalog.code_of(type(task))}, "source": task.source_digest(),
            "tokenizer": base.tokenizer_digest, "max_tokens": use.max_tokens or study.training.sequence_length,
            "num_val": use.num_val, "num_test": use.num_test}
    if set(use.task.splits) != set(SPLITS[1:]):
        spec["splits"] = list(use.task.splits)
    if base.form == "encoder-decoder":
        spec["form"] = base.form
    elif type(use.task).is_chat and base.chat_template is not None:
        spec["chat_template"] = {"digest": key_of(base.chat_template), "version": CHAT_VERSION}
    if output_metrics(use):
        spec["max_new_tokens"] = use.max_new_tokens
    if use.flaws != NO_FLAWS:
        spec["flaws"] = use.flaws.model_dump(mode="json", exclude_defaults=True)
    return spec, json.dumps(written)


def model(base: ResolvedBase, resolved: Resolved) -> dict[str, Any]:
    """What every stage that runs a model holds."""
    return {"base": base.weights_digest, "attention": attention(base, resolved), "threads": resolved.threads}


def attention(base: ResolvedBase, resolved: Resolved) -> Attention:
    """The attention that the base is loaded with."""
    return attention_used(base.config["model_type"], resolved.attention)


def training(study: Study, base: ResolvedBase, arm: Arm, phase: str, resolved: Resolved,
             before: State) -> dict[str, Any]:
    """What a phase trains: components, settings, rows. A joint phase has the budgets of its tasks together."""
    settings = study.training_of(arm)
    tasks = joined_tasks(phase)
    if len(tasks) > 1 and settings.budget.unit != "epochs":
        budget = settings.budget.model_copy(update={"amount": settings.budget.amount * len(tasks)})
        settings = settings.model_copy(update={"budget": budget})
    spec = {**model(base, resolved), "task": phase,
            "components": components(arm, phase, before),
            "training": settings.identity(exclude_defaults=True)}
    rows = {name: wanted for name, task in zip(data_inputs(phase), tasks, strict=True)
            if (wanted := arm.rows(task) or study.task(task).num_train) is not None}
    if arm.quantization is not None:
        spec["quantization"] = arm.quantization
    if computing := packages(arm, settings):
        spec[catalog.PACKAGES] = computing
    return {**spec, "num_train": rows} if rows else spec


def packages(arm: Arm, settings: Training) -> dict[str, str]:
    """The versions of the packages that compute for an arm and that the environment class does not hold; none of one that
    is not installed, which planning does not need."""
    if arm.quantization is None and settings.optimizer != EIGHT_BIT:
        return {}
    version = catalog.installed_version(BITSANDBYTES)
    return {BITSANDBYTES: version} if version else {}


def components(arm: Arm, phase: str, before: State) -> list[dict[str, Any]]:
    """The components of a phase. In an empty slot carry means nothing: left out, so that arms share the stage."""
    written = [component.spec() for component in arm.for_task(phase)]
    return [{**row, "carry": Carry.CONTINUE.value} if before.newest(row["slot"]) is None else row for row in written]


def profiled(spec: dict[str, Any], settings: Training) -> dict[str, Any]:
    """The spec of a profile: how long a phase trains, and when it looks at validation, does not change its speed. What
    changes no result may change it."""
    settings = settings.model_copy(
        update={"budget": Budget(amount=1, unit="steps"), "evaluations": 0, "early_stopping": None})
    return {**spec, "training": settings.model_dump(mode="json", exclude_defaults=True)}


def data_inputs(phase: str) -> list[str]:
    """The names of a training stage's data inputs, in the order of the phase's tasks."""
    return ["data", *(f"data+{task}" for task in joined_tasks(phase)[1:])]


def scored(use: TaskUse) -> list[dict[str, Any]]:
    """The scorers of a task's outputs, as a `score` stage's spec holds them."""
    found = []
    for name in output_metrics(use):
        scorer = catalog.find("scorer", name)
        row = {"kind": name, **catalog.code_of(scorer)}
        if "language" in scorer.model_fields:  # type: ignore[attr-defined]
            row["language"] = use.task.target_language
        if scorer.executes and use.sampling is not None and use.sampling.pass_at != 1:  # type: ignore[attr-defined]
            row["k"] = use.sampling.pass_at
        found.append(row)
    return found


def primary_scorer(use: TaskUse) -> dict[str, Any]:
    """That of the metric that decides on a task's outputs."""
    return next(row for row in scored(use) if row["kind"] == use.primary_metric)


def executes(metrics: Iterable[Mapping[str, Any]]) -> bool:
    """Whether outputs are run as programs for some of these scorers."""
    return any(catalog.find("scorer", row["kind"]).executes for row in metrics)  # type: ignore[attr-defined]


def execution(use: TaskUse, split: str = "test") -> dict[str, Any]:
    """How a task's outputs are run. The version of the interpreter is left out where there is none: the run refuses then."""
    language = use.task.target_language
    version = runtime_version(language)
    return {"split": split, "language": language, **({"runtime": version} if version else {})}


def decoding(study: Study, use: TaskUse, seed: int, replicate: str = "", split: str = "test") -> dict[str, Any]:
    """How the outputs of one task are made. What draws nothing has no seed in it."""
    spec = {"split": split, "precision": study.evaluation.precision, "max_new_tokens": use.max_new_tokens}
    searched = use.decoding.identity() if use.decoding is not None else {}
    if use.sampling is None:
        return {**spec, "decoding": {"do_sample": False, **searched}} if searched else spec
    drawn = {name: value for name, value in use.sampling.identity().items() if name != "pass_at"}
    stream = {"seed": seed, "replicate": replicate} if replicate else {"seed": seed}
    return {**spec, "decoding": {"do_sample": True, **drawn, **stream, **searched}}


def ends(base: ResolvedBase) -> dict[str, Any]:
    """What ends an answer beside the tokenizer's end token."""
    return {"end_tokens": list(base.end_tokens)} if base.end_tokens else {}


def output_metrics(use: TaskUse) -> list[str]:
    """The metrics of a task that read generated outputs; none if it does not generate."""
    if not type(use.task).generates:
        return []
    return [name for name in metrics(use) if _needs(name) == "outputs"]


def loss_metrics(use: TaskUse) -> list[str]:
    """The metrics of a task that read losses; nats per token is always among them: rates are chosen by it."""
    return [name for name in metrics(use) if _needs(name) == "losses"]


def probe_metrics(use: TaskUse) -> list[str]:
    """The metrics of a task that compare the model with its base."""
    return [name for name in metrics(use) if _needs(name) == "probe"]


def metrics(use: TaskUse) -> list[str]:
    """Every metric of a task: its primary one first, then those the study names, else the task's own; and nats per token.

    Raises UserError for a metric that does not fit the task.
    """
    named = use.metrics or type(use.task).metrics
    wanted = dict.fromkeys(catalog.registered_name(name) for name in (use.primary_metric, *named, NATS_PER_TOKEN))
    for name in wanted:
        catalog.find("scorer", name).check(use.task)  # type: ignore[attr-defined]
    return list(wanted)


def _needs(metric: str) -> str:
    needs: str = catalog.find("scorer", metric).needs  # type: ignore[attr-defined]
    return needs


def as_point(study: Study, arm: Arm, rate: float, phase: str) -> Mapping[str, Any]:
    """Where in the grid a cell lies: rate, the rank if all components share one, training rows if limited."""
    task = joined_tasks(phase)[0]
    ranks = {rank for component in arm.for_task(phase) if component.method is not None
             and (rank := getattr(component.method, "rank", None)) is not None}
    return {"learning_rate": rate, "rank": ranks.pop() if len(ranks) == 1 else None,
            "num_train": arm.rows(task) or study.task(task).num_train}
