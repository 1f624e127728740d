"""LoRA or a whole new transformer layer, Python then JavaScript: a frozen base with swappable parts.

    finetrial run lora-vs-layer --size demo      LoRA r=8, LoRA at the layer's parameters, layer; three seeds
    finetrial run lora-vs-layer                  five arms, five seeds, both routings
    finetrial run lora-vs-layer --size thorough  also interleaved and random layers

`pycode` (description -> Python body), then `jscode` (comment -> JavaScript function). Parts are swapped per task: the
second task starts a fresh one beside the base. Under LATEST the newest part answers for both tasks, which is where
forgetting can be seen; under ORACLE the old part answers for Python, unchanged: zero by construction, and said so.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.methods.base import Method
from finetrial.methods.full import Full
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
    TaskUse,
)
from finetrial.studies.arms import grid, lora
from finetrial.studies.as_published import lora_vs_layer
from finetrial.studies.base import BuiltIn
from finetrial.tasks.jscode import Jscode
from finetrial.tasks.pycode import Pycode
from finetrial.tasks.python_text import PythonText
from finetrial.train.config import Budget, Training

PYTHON, JAVASCRIPT, OLD = "pycode", "jscode", "python-text"
MATCHED_RANK = 48  # all linear layers of tiny-gpt: 786,432 parameters, one new block 789,760


class LoraVsLayer(BuiltIn):
    """The study of adapters against new layers."""

    summary: ClassVar[str] = "LoRA or a whole new layer, Python then JavaScript"

    def make(self, scale: str, size: str) -> Study:
        """The embedded study at one of three sizes."""
        demo = size == "demo"
        bases = (Base(name="tiny-gpt"),)
        return Study(
            name="lora-vs-layer", scale="embedded", size=size,
            question="Frozen base plus swappable LoRA adapters, or frozen base plus swappable new layers?",
            bases=bases, tasks=code_tasks(), sequences=(Sequence(name="py-js", tasks=(PYTHON, JAVASCRIPT)),),
            arms=_arms(size), evaluation=Evaluation(routings=("latest",) if demo else ("latest", "oracle")),
            controls=Controls(reference="lora-r8", positive=PositiveControl(arm="lora-r8", task=OLD)),
            hypotheses=_hypotheses([base.name for base in bases]),
            training=Training(budget=Budget(amount=60 if size == "thorough" else 40, unit="steps"), sequence_length=256,
                              batch_sequences=4),
            seeds=tuple(range(3 if demo else 5)), factors=("method", "rank", "targets", "position", "init"),
            notes=("tiny models of 5 to 8 million parameters: results on them are results on tiny models",
                   "tiny-gpt was pretrained on Python, never on JavaScript"))

    def make_as_published(self) -> Study:
        """The published comparison of swapped parts and its flaws."""
        return lora_vs_layer.study()


def code_tasks() -> tuple[TaskUse, ...]:
    """Python, then JavaScript, and Python text that is never trained on."""
    return (TaskUse(name=PYTHON, task=Pycode(), num_val=40, num_test=150, max_new_tokens=96),
            TaskUse(name=JAVASCRIPT, task=Jscode(), num_val=40, num_test=150, max_new_tokens=96),
            TaskUse(name=OLD, task=PythonText(), role="outside", num_val=20, num_test=150, max_tokens=64))


def swapped(name: str, label: str, method: Method, carry: Carry = Carry.FRESH) -> Arm:
    """A part that the second task starts anew (or goes on with)."""
    return Arm(name=name, label=label, components={"*": (Component(method=method, carry=carry),)},
               learning_rates=grid(method))


def _arms(size: str) -> tuple[Arm, ...]:
    few = (swapped("lora-r8", "LoRA r=8, all linear layers", lora(8, "all-linear")),
           swapped("lora-matched", f"LoRA r={MATCHED_RANK}: as many parameters as the layer",
                   lora(MATCHED_RANK, "all-linear")),
           swapped("layer", "new layer at the end, zero output", Layer()))
    if size == "demo":
        return few
    standard = (*few, swapped("full", "full fine-tuning, one model for both", Full(), Carry.CONTINUE),
                swapped("unfreeze", "the last old layer unfrozen", Unfreeze(last=1)))
    if size == "standard":
        return standard
    return (*standard, swapped("layer-interleaved", "new layer in the middle, zero output", Layer(position=2)),
            swapped("layer-random", "new layer at the end, random, output x0.01",
                    Layer(init="random", output_scale=0.01)))


def _hypotheses(bases: list[str]) -> tuple[Hypothesis, ...]:
    """Fixed before the run; on the first base."""
    where = {"base": bases[0]} if len(bases) > 1 else {}
    return (
        Hypothesis(name="H1", statement="LoRA r=8 writes better JavaScript (chrF) than the new layer.",
                   contrast=Contrast(left="lora-r8", right="layer", task=JAVASCRIPT, expect="greater", margin=0.01,
                                     **where)),
        Hypothesis(name="H2", statement="Where the newest part answers for both, the layer forgets less Python than "
                                        "LoRA r=8.",
                   contrast=Contrast(left="layer", right="lora-r8", quantity="forgetting", task=PYTHON,
                                     metric="nats-per-token", expect="less", margin=0.02, **where)),
        Hypothesis(name="H3", statement="At equal parameters LoRA and the new layer do not differ on JavaScript (chrF).",
                   contrast=Contrast(left="lora-matched", right="layer", task=JAVASCRIPT, expect="equal", margin=0.01,
                                     **where)))
