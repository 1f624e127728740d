"""Full fine-tuning and LoRA along task A then task B: what is learned of B, what is forgotten of A.

    finetrial run plasticity-stability --size demo      three arms, three seeds
    finetrial run plasticity-stability                  five arms, five seeds
    finetrial run plasticity-stability --size thorough  also B then A, joint training, B alone
    finetrial run plasticity-stability --scale full     gpt2: OASST1 replies, then CNN/DailyMail; old text: WikiText-2

A = `pydoc-chat` (function -> documentation), B = `pycode` (description -> function), on `tiny-gpt`; judged under LATEST
routing. The published design had one path (A by full fine-tuning, then B by LoRA), which ties the method to the
position: here the method at A and the method at B are crossed.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.methods.base import Method
from finetrial.methods.full import Full
from finetrial.spec import Arm, Base, Carry, Contrast, Controls, Hypothesis, PositiveControl, Sequence, Study, TaskUse
from finetrial.studies.arms import BUNDLED, HUB, Rates, arm, higher, lora, path_arm
from finetrial.studies.as_published import plasticity_stability
from finetrial.studies.base import EMBEDDED, FULL, BuiltIn
from finetrial.tasks.cnn_dailymail import CnnDailymail
from finetrial.tasks.oasst1 import Oasst1
from finetrial.tasks.pycode import Pycode
from finetrial.tasks.pydoc_chat import PydocChat
from finetrial.tasks.python_text import PythonText
from finetrial.tasks.wikitext import Wikitext
from finetrial.train.config import Budget, Training

QUESTION = ("To what extent do full fine-tuning and LoRA demonstrate plasticity-stability trade-offs in language models, "
            "considering the impact on task performance, model stability, and computational efficiency when adapting "
            "to new tasks?")
EMBEDDED_TASKS, HUB_TASKS = ("pydoc-chat", "pycode", "python-text"), ("oasst1", "cnn-dailymail", "wikitext")  # A, B, old
LOSSES = ("nats-per-token", "bits-per-byte", "kl-from-base")
FORWARD, BACKWARD = "a-then-b", "b-then-a"


class PlasticityStability(BuiltIn):
    """The study of RQ2: "To what extent do full fine-tuning and LoRA demonstrate plasticity-stability trade-offs?"."""

    summary: ClassVar[str] = "full fine-tuning and LoRA along A then B: plasticity against stability"

    def make(self, scale: str, size: str) -> Study:
        """The study at one of three sizes of a scale."""
        return _full(size) if scale == FULL else self._embedded(size)

    def _embedded(self, size: str) -> Study:
        demo, thorough = size == "demo", size == "thorough"
        test = 150 if not thorough else 200
        a, b, old = EMBEDDED_TASKS
        return Study(
            name="plasticity-stability", scale=EMBEDDED, size=size, question=QUESTION, bases=(Base(name="tiny-gpt"),),
            tasks=(TaskUse(name=a, task=PydocChat(), num_val=40, num_test=test),
                   TaskUse(name=b, task=Pycode(), num_val=40, num_test=test),
                   TaskUse(name=old, task=PythonText(), role="outside", num_val=20, num_test=test, max_tokens=128,
                           metrics=LOSSES)),
            sequences=(Sequence(name=FORWARD, tasks=(a, b)), *((Sequence(name=BACKWARD, tasks=(b, a)),)
                                                             if thorough else ())),
            arms=_arms(size, BUNDLED, (a, b)),
            controls=Controls(reference="full-full", positive=PositiveControl(arm="full-full", task=old),
                              single_task=thorough, joint=thorough),
            hypotheses=_hypotheses(a, b),
            training=Training(budget=Budget(amount=60 if size == "thorough" else 40, unit="steps"), sequence_length=256,
                              batch_sequences=4),
            seeds=tuple(range(3 if demo else 5)),
            factors=("method", "rank", "targets", "path"),
            notes=("tiny-gpt has 5 million parameters: results on it are results on a tiny model",))

    def make_as_published(self) -> Study:
        """The published path, and paths that cross method and position."""
        return plasticity_stability.study()


def _full(size: str) -> Study:
    """gpt2 on conversations, then on summaries."""
    a, b, old = HUB_TASKS
    published, thorough = size == "published-budget", size == "thorough"
    return Study(
        name="plasticity-stability", scale=FULL, size=size, question=QUESTION,
        bases=(Base(name="gpt2", source="openai-community/gpt2"),),
        tasks=(TaskUse(name=a, task=Oasst1(), num_train=4_000, num_val=100, num_test=300),
               TaskUse(name=b, task=CnnDailymail(), num_train=4_000, num_val=100, num_test=300, max_new_tokens=128),
               TaskUse(name=old, task=Wikitext(), role="outside", num_val=100, num_test=300, metrics=LOSSES)),
        sequences=(Sequence(name=FORWARD, tasks=(a, b)), *((Sequence(name=BACKWARD, tasks=(b, a)),) if thorough else ())),
        arms=_arms(size, Rates((5e-5,), (2e-4,)) if published else HUB, (a, b)),
        controls=Controls(reference="full-full", positive=PositiveControl(arm="full-full", task=old),
                          single_task=True, joint=True),
        hypotheses=_hypotheses(a, b),
        training=Training(budget=Budget(amount=1, unit="epochs"), sequence_length=512, batch_sequences=16,
                          precision="fp16"),
        seeds=tuple(range(3 if published else 5)), factors=("method", "rank", "targets", "path"),
        notes=("no rates were published; one each, untuned: an arm that loses may only have the worse rate",)
        if published else ())


def _arms(size: str, rates: Rates, tasks: tuple[str, str]) -> tuple[Arm, ...]:
    full, adapter = Full(), lora(8)
    of_second = higher(rates.of(adapter)) if rates is BUNDLED else None  # for LoRA validation chose the highest there

    def path(name: str, label: str, first: Method, then: Method, carry: Carry) -> Arm:
        return path_arm(name, label, first, then, carry, tasks, rates=rates,
                        then_rates=of_second if then is adapter else None)

    if size == "thorough":  # in both orders, and jointly: a method belongs to a task and not to a place
        mixed = f"full on {tasks[0]}, LoRA r=8 on {tasks[1]}", f"LoRA r=8 on {tasks[0]}, full on {tasks[1]}"
    else:
        mixed = "full, then LoRA r=8", "LoRA r=8 merged, then full"
    arms = (arm("full-full", "full, then full", full, rates=rates),
            path("lora-lora", "LoRA r=8, then the same LoRA", adapter, adapter, Carry.CONTINUE),
            path("full-lora", mixed[0], full, adapter, Carry.MERGE),
            path("lora-full", mixed[1], adapter, full, Carry.MERGE),
            path("lora-merge-lora", "LoRA r=8 merged, then new LoRA", adapter, adapter, Carry.MERGE))
    return arms[:3] if size == "demo" else arms


def _hypotheses(a: str, b: str) -> tuple[Hypothesis, ...]:
    """Fixed before the run; judged after both tasks, under LATEST."""
    full, adapter = "full-full", "lora-lora"

    def learns(x: str, y: str) -> Contrast:
        return Contrast(left=x, right=y, task=b, metric="nats-per-token", sequence=FORWARD, expect="greater",
                        margin=0.02)

    def forgets(x: str, y: str) -> Contrast:
        return Contrast(left=x, right=y, quantity="forgetting", task=a, metric="nats-per-token", sequence=FORWARD,
                        expect="greater", margin=0.02)

    def costs_less(x: str, y: str) -> Contrast:
        return Contrast(left=x, right=y, quantity="cost", cost="optimizer_bytes", task=b, sequence=FORWARD,
                        expect="less")

    trade_off = Hypothesis(
        name="H2a", statement="Full fine-tuning and LoRA show a trade-off: one learns the new task better, but forgets "
                              "more of the old one or costs more.",
        any_of=tuple((learns(x, y), other(*pair))
                     for x, y in ((full, adapter), (adapter, full))
                     for other, pair in ((forgets, (x, y)), (costs_less, (y, x)))))
    at_matched = Hypothesis(
        name="H2b", statement="At matched plasticity on the new task, LoRA forgets less of the task before than full "
                              "fine-tuning.",
        contrast=Contrast(left=adapter, right=full, quantity="forgetting-at-matched-plasticity", task=a, learned=b,
                          metric="nats-per-token", sequence=FORWARD, expect="less", margin=0.02))
    after_full = Hypothesis(
        name="H2c", statement="After full fine-tuning on the first task, LoRA on the second forgets less of the first "
                              "than full fine-tuning on the second does.",
        contrast=Contrast(left="full-lora", right=full, quantity="forgetting", task=a, metric="nats-per-token",
                          sequence=FORWARD, expect="less", margin=0.02))
    return trade_off, at_matched, after_full
