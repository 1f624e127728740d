"""Memory, disk, operations and time of a study: its plan, stage by stage, with nothing loaded and nothing downloaded.

Rows are taken to be as long as the study lets them be, so tokens, and with them time, are at most what is said, unless
the data has been encoded and is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetrial.plan import specs
from finetrial.plan.bases import resolve_base
from finetrial.plan.forecast import memory
from finetrial.plan.forecast.activations import FP32
from finetrial.plan.forecast.device import Change, Verdict, changes, verdict
from finetrial.plan.forecast.duration import Time, forecast_time
from finetrial.plan.forecast.memory import Need, Step
from finetrial.plan.forecast.shapes import read_shapes
from finetrial.plan.forecast.sizes import Sizes, phases_of, prompt_tokens, step_of
from finetrial.plan.forecast.stacking import stack_size
from finetrial.plan.forecast.trained import Trained
from finetrial.plan.lines import arm_runs
from finetrial.plan.plan import Plan
from finetrial.plan.specs import Resolved
from finetrial.spec.arm import Arm
from finetrial.spec.study import Study
from finetrial.stages.base import StageInput

PREDICTION_BYTES = 4 * 8  # of a row of predictions, without its names: loss, tokens, bytes, each 8 bytes


@dataclass(frozen=True)
class ArmForecast:
    """What training one arm on one base needs, at its hungriest phase; `need` is None where that is unknown."""

    base: str
    arm: str
    title: str
    micro_batch: int
    need: Need | None
    verdict: Verdict | None = None  # None: no device was named
    changes: tuple[Change, ...] = ()
    stack: int = 1  # LoRA cells that a run on that GPU trains in one pass, if as many are ready


@dataclass(frozen=True)
class Resources:
    """The forecast of a study. Memory is of one process; `disk_bytes` of what the store has yet to hold."""

    arms: tuple[ArmForecast, ...]
    prediction: Need | None
    generation: Need | None
    generates: bool
    disk_bytes: int | None
    time: Time
    device: str = ""
    available_bytes: int | None = None
    assumed: tuple[str, ...] = ()
    processes: int = 1  # that train a phase together; memory is of each
    split: bool = False  # and hold the model between them
    probe: Need | None = None
    probes: bool = False

    def as_json(self) -> dict[str, Any]:
        """JSON-like content, with the peaks beside their parts."""
        written = asdict(self)
        for row, arm in zip(written["arms"], self.arms, strict=True):
            row["need"] = _json(arm.need)
        return {**written, "prediction": _json(self.prediction), "generation": _json(self.generation), "probe": _json(self.probe)}


def forecast_study(study: Study, plan: Plan, *, recorded: Mapping[str, StageInput], relative_to: Path | None = None,
                   device: str = "", available_bytes: int | None = None, on_gpu: bool = False,
                   rate: float | None = None, processes: int = 1, split: bool = False) -> Resources:
    """The forecast. `recorded`: the stages that the store holds; `on_gpu`: whether the memory asked about is a GPU's;
    `rate`: operations a second, if given; `processes` train each phase together, with `split` each a part of the model.

    Raises ModelError where a base cannot be found or a method does not fit it.
    """
    bases = {base.name: resolve_base(base, relative_to, fetch=False) for base in study.bases}
    sizes = Sizes(study, bases, {name: read_shapes(base.config) for name, base in bases.items()})
    arms = tuple(_arm(sizes, name, run.arm, step_of(study, run.arm, base, on_gpu=on_gpu, processes=processes, split=split),
                      available_bytes, on_gpu)
                 for name, base in bases.items() for run in arm_runs(study) if run.role == "arm")
    generates, probes = any(row.generate for row in plan.outputs), bool(plan.probes)
    return Resources(arms, _prediction(sizes, memory.prediction, on_gpu), _generation(sizes, plan, on_gpu) if generates else None, generates,
                     _disk(sizes, plan, recorded), forecast_time(sizes, plan, recorded, rate), device, available_bytes,
                     _assumed(sizes), processes, split, _prediction(sizes, memory.probe, on_gpu) if probes else None, probes)


def _arm(sizes: Sizes, base: str, arm: Arm, step: Step, available: int | None, on_gpu: bool) -> ArmForecast:
    """The phase that needs most; unknown where one of them is."""
    shapes = sizes.shapes[base]
    unknown = ArmForecast(base, arm.name, arm.title, step.micro_batch, None, None if available is None else "unknown")
    if shapes is None:
        return unknown
    needs: list[tuple[Need, Trained]] = []
    for task in phases_of(sizes.study, arm):
        trained = sizes.trained(base, arm, task)
        need = memory.training(shapes, trained, step) if trained is not None else None
        if trained is None or need is None:
            return unknown
        needs.append((need, trained))
    stack = min(stack_size(shapes, one, step, device="cuda" if on_gpu else "", available_bytes=available)
                for _, one in needs) if _can_stack(arm, step) else 1
    need, trained = max(needs, key=lambda one: one[0].peak)
    judged = None if available is None else verdict(need.peak, available)
    mend = changes(shapes, sizes.bases[base].config, trained, step, available or 0) if judged == "does not fit" else []
    return ArmForecast(base, arm.name, arm.title, step.micro_batch, need, judged, tuple(mend), stack)


def _can_stack(arm: Arm, step: Step) -> bool:
    """Whether every phase of the arm may be shared by a stack, as far as a study tells."""
    methods = [component.method for components in arm.components.values() for component in components]
    return (step.processes == 1 and all(method is not None and type(method).stackable for method in methods) and not step.checkpointing
            and not step.four_bit and all(len(components) == 1 for components in arm.components.values()))


def _prediction(sizes: Sizes, needed: Callable[..., Need], on_gpu: bool) -> Need | None:
    """Of the largest base; `needed` is for predicting or for probing."""
    study, found = sizes.study, []
    length = max(use.max_tokens or study.training.sequence_length for use in study.tasks)
    for name, shapes in sizes.shapes.items():
        if shapes is None:
            return None
        eager = specs.attention(sizes.bases[name], Resolved()) == "eager"
        found.append(needed(shapes, length, eager=eager, on_gpu=on_gpu))
    return max(found, key=lambda need: need.peak)


def _generation(sizes: Sizes, plan: Plan, on_gpu: bool) -> Need | None:
    """Of the largest base and the task, with its largest split that is answered, that needs most. On a GPU copies in bf16 take only what is free."""
    found, copies = [], sizes.study.evaluation.precision != "fp32" and not on_gpu
    answered = {(row.of.task, row.of.split) for row in plan.outputs if row.generate}
    rows = {task: max(sizes.study.task(task).num_scored(split) or 0 for other, split in answered if other == task) for task, _ in answered}
    for shapes in sizes.shapes.values():
        if shapes is None:
            return None
        for use in sizes.study.tasks:
            if use.name in rows:
                prompt = prompt_tokens(sizes.study, use, shapes)
                found.append(memory.generation(shapes, rows[use.name] * use.num_samples * use.num_beams, prompt, use.max_new_tokens,
                                               sampled=use.sampling is not None, beams=use.num_beams, copies=copies))
    return max(found, key=lambda need: need.peak, default=None)


def _disk(sizes: Sizes, plan: Plan, recorded: Mapping[str, StageInput]) -> int | None:
    """Trained weights in fp32, once for each training, and predictions. What a phase did not touch is a hard link."""
    arms = {run.name: run.arm for run in arm_runs(sizes.study)}
    total = 0
    done = set(recorded)
    for cell in plan.cells:
        for phase in cell.phases:
            if phase.train and phase.train not in done:
                trained = sizes.trained(cell.key.base, arms[cell.key.arm], phase.task)
                if trained is None or trained.parameters is None:
                    return None
                total += trained.parameters * FP32
                done.add(phase.train)
    predicted = {stage: of for cell in plan.cells for phase in cell.phases for of, stage in phase.predictions.items()}
    predicted |= {row.predict: row.of for row in plan.losses}
    for of in (of for stage, of in predicted.items() if stage not in done):
        total += (sizes.study.task(of.task).num_scored(of.split) or 0) * PREDICTION_BYTES
    return total


def _assumed(sizes: Sizes) -> tuple[str, ...]:
    """What was taken for granted of bases and methods, each thing once."""
    said = [f"{name}: {text}" for name, shapes in sizes.shapes.items() if shapes is not None for text in shapes.assumed]
    said += [f"{name}: the sizes of this architecture cannot be read from its config.json"
             for name, shapes in sizes.shapes.items() if shapes is None]
    for base in sizes.bases:
        for arm in sizes.study.arms:
            for task in phases_of(sizes.study, arm):
                trained = sizes.trained(base, arm, task)
                said += trained.assumed if trained is not None else ()
    return tuple(dict.fromkeys(said))


def _json(need: Need | None) -> dict[str, Any] | None:
    return None if need is None else {"peak_bytes": need.peak, "parts": dict(need.parts)}
