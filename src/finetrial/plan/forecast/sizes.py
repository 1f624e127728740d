"""What a forecast reads of a study: the shapes of its bases, what each arm trains on them, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from finetrial.plan import specs
from finetrial.plan.bases import ResolvedBase
from finetrial.plan.forecast.memory import Step
from finetrial.plan.forecast.shapes import ModelShapes
from finetrial.plan.forecast.trained import Trained, trained_by
from finetrial.plan.specs import Resolved
from finetrial.spec.arm import Arm
from finetrial.spec.study import Study
from finetrial.spec.uses import TaskUse
from finetrial.train.config import Training
from finetrial.train.data_parallel import largest_micro_batch


@dataclass
class Sizes:
    """The shapes of a study's bases, and what its arms train on them; each worked out once."""

    study: Study
    bases: Mapping[str, ResolvedBase]
    shapes: Mapping[str, ModelShapes | None]
    _trained: dict[tuple[str, str, str], Trained | None] = field(default_factory=dict)

    def trained(self, base: str, arm: Arm, task: str) -> Trained | None:
        """What a phase trains; None where the base's shapes are not known."""
        key, shapes = (base, arm.name, task), self.shapes[base]
        if key not in self._trained:
            self._trained[key] = None if shapes is None else trained_by(
                arm.trained_methods(task), shapes, self.bases[base].config)
        return self._trained[key]


def step_of(study: Study, arm: Arm, base: ResolvedBase, *, on_gpu: bool = False, processes: int = 1,
            split: bool = False) -> Step:
    """How an arm trains: whole batches, or the share of one of `processes`, as a run begins."""
    step = step_with(study.training_of(arm), pairs=base.is_encoder_decoder,
                     eager=specs.attention(base, Resolved()) == "eager", on_gpu=on_gpu)
    return replace(step, four_bit=arm.quantization is not None, micro_batch=largest_micro_batch(step.rows, processes),
                   processes=processes, split=split, offload=step.offload and not split)


def step_with(training: Training, *, pairs: bool, eager: bool, on_gpu: bool) -> Step:
    """A step in whole batches. `pairs`: of an encoder-decoder."""
    return Step(rows=training.batch_sequences, length=training.sequence_length, micro_batch=training.batch_sequences,
                mixed=training.precision != "fp32", optimizer=training.optimizer, eager=eager,
                masked=training.packing and not pairs, checkpointing=training.activation_checkpointing,
                offload=on_gpu and training.precision != "fp32", on_gpu=on_gpu)


def phases_of(study: Study, arm: Arm) -> list[str]:
    """Every phase that the arm goes through, by the task it trains on."""
    return list(dict.fromkeys(task for path in study.every_path if arm in study.arms_along(path) for task in path.tasks))


def prompt_tokens(study: Study, use: TaskUse, shapes: ModelShapes) -> int:
    """The longest prompt: a decoder's shares the row with what is generated (`tasks/encode.py`)."""
    longest: int = use.max_tokens or study.training.sequence_length
    return longest if shapes.encoder_decoder else max(1, longest - use.max_new_tokens)
