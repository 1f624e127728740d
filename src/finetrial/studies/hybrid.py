"""LoRA and a new layer together: do they add up, and may the layer be shared between tasks?

    finetrial run hybrid --size demo      the 2 x 2 of LoRA and layer, three seeds
    finetrial run hybrid                  seven arms, five seeds
    finetrial run hybrid --size thorough  also joint training and JavaScript alone

Python (`pycode`), then JavaScript (`jscode`). Experiment 1, task-specific: LoRA and layer are new for each task.
Experiment 2, shared layer: LoRA is new, the layer of the first task is used again, frozen or trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from finetrial.methods.layer import Layer
from finetrial.methods.unfreeze import Unfreeze
from finetrial.spec import (
    Arm,
    Base,
    Carry,
    Component,
    Contrast,
    Controls,
    Evaluation,
    Hypothesis,
    PositiveControl,
    Sequence,
    Study,
)
from finetrial.spec.study import BASE_ARM
from finetrial.studies.arms import LORA_RATES, lora
from finetrial.studies.as_published import hybrid
from finetrial.studies.base import BuiltIn
from finetrial.studies.lora_vs_layer import JAVASCRIPT, OLD, PYTHON, code_tasks, swapped
from finetrial.train.config import Budget, Training

RANK, TARGETS = 8, "all-linear"
MATCHED_RANK = 56  # 917,504 parameters; LoRA r=8 and one block together 920,832


class Hybrid(BuiltIn):
    """The study of hybrids."""

    summary: ClassVar[str] = "LoRA and a new layer together, task-specific or shared"

    def make(self, scale: str, size: str) -> Study:
        """The embedded study at one of three sizes."""
        demo, thorough = size == "demo", size == "thorough"
        bases = (Base(name="tiny-gpt"),)
        return Study(
            name="hybrid", scale="embedded", size=size,
            question="How do LoRA and a new layer interact, and does sharing the layer between tasks help or hurt?",
            bases=bases, tasks=code_tasks(), sequences=(Sequence(name="py-js", tasks=(PYTHON, JAVASCRIPT)),),
            arms=_arms(size), evaluation=Evaluation(routings=("latest",) if demo else ("latest", "oracle")),
            controls=Controls(reference="lora", positive=PositiveControl(arm="lora", task=OLD),
                              single_task=thorough, joint=thorough),
            hypotheses=_hypotheses(size, [base.name for base in bases]),
            training=Training(budget=Budget(amount=60 if size == "thorough" else 40, unit="steps"), sequence_length=256,
                              batch_sequences=4),
            seeds=tuple(range(3 if demo else 5)), factors=("method", "rank", "targets", "sharing"),
            notes=("tiny models of 5 to 8 million parameters: results on them are results on tiny models",))

    def make_as_published(self) -> Study:
        """The two published experiments, and the same over several seeds and rates."""
        return hybrid.study()


def _both(name: str, label: str, layer: Carry) -> Arm:
    """LoRA, new for each task, and a layer that is carried on in some way."""
    adapter = Component(method=lora(RANK, TARGETS), slot="adapter", carry=Carry.FRESH)
    block = Component(method=Layer(), slot="layer")
    later = block.model_copy(update={"carry": layer})
    return Arm(name=name, label=label, components={PYTHON: (block, adapter), JAVASCRIPT: (later, adapter)},
               learning_rates=LORA_RATES, factors={"lora": 1, "layer": 1})


def _arms(size: str) -> tuple[Arm, ...]:
    alone = swapped("lora", "LoRA r=8 alone", lora(RANK, TARGETS)).model_copy(update={"factors": {"lora": 1, "layer": 0}})
    layer = swapped("layer", "new layer alone", Layer()).model_copy(update={"factors": {"lora": 0, "layer": 1}})
    specific = _both("specific", "LoRA + layer, new for each task", Carry.FRESH)
    if size == "demo":
        return alone, layer, specific
    return (alone, layer, specific,
            _both("shared-frozen", "new LoRA, the first task's layer frozen", Carry.FREEZE),
            _both("shared-trained", "new LoRA, the first task's layer trained on", Carry.CONTINUE),
            swapped("lora-matched", f"LoRA r={MATCHED_RANK}: as many parameters as both", lora(MATCHED_RANK, TARGETS)),
            swapped("unfreeze", "the last old layer unfrozen", Unfreeze(last=1)))


def _hypotheses(size: str, bases: list[str]) -> tuple[Hypothesis, ...]:
    """Fixed before the run; on the first base, judged by chrF, each task answered by its own parts (ORACLE)."""
    where = {"base": bases[0]} if len(bases) > 1 else {}
    oracle = "latest" if size == "demo" else "oracle"

    def better(left: str, right: str, task: str, routing: str = "latest") -> Contrast:
        return Contrast(left=left, right=right, task=task, routing=routing, expect="greater", margin=0.01, **where)

    beats_parts = Hypothesis(
        name="H3", statement="Task-specific LoRA + layer beats each component alone on JavaScript"
                             + ("." if size == "demo" else ", LoRA with as many parameters too."),
        all_of=tuple(better("specific", other, JAVASCRIPT)
                     for other in ("lora", "layer", *(() if size == "demo" else ("lora-matched",)))))
    if size == "demo":
        return beats_parts, _interaction(where)
    specific = Hypothesis(
        name="H1", statement="Task-specific beats shared on each task.",
        all_of=tuple(better("specific", "shared-trained", task, oracle) for task in (PYTHON, JAVASCRIPT)))
    transfer = Hypothesis(
        name="H2", statement="A shared layer that is trained on helps JavaScript: it beats the task-specific one there.",
        contrast=better("shared-trained", "specific", JAVASCRIPT), primary=False)
    return specific, transfer, beats_parts, _interaction(where)


def _interaction(where: Mapping[str, str]) -> Hypothesis:
    """(both - layer) - (LoRA - none), none being the untouched base."""
    contrast = Contrast(left="specific", right="layer", interaction=("lora", BASE_ARM), task=JAVASCRIPT,
                        expect="less", margin=0.01, **where)
    return Hypothesis(name="H4", statement="LoRA and the layer do not add up: what LoRA gains on JavaScript is less with "
                                           "the layer than without it.", contrast=contrast, primary=False)
