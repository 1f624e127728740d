"""`plasticity-stability` as it was published: one path, task A by full fine-tuning, then task B by LoRA on the result.

No figures were published. One path cannot answer the question, since the method is tied to the position; mended, the
method at A and the method at B are crossed. Here tiny-gpt, A = `pydoc-chat`, B = `pycode`, 40 steps a task.
"""

from __future__ import annotations

from finetrial.methods.base import Method
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.spec import Arm, Carry, Component, Contrast, PublishedClaim, Sequence, Study, TaskUse
from finetrial.spec.claims import NO_FIGURE
from finetrial.spec.study import BASE_ARM
from finetrial.studies.arms import FULL_RATES, LORA_RATES
from finetrial.studies.as_published import arm_along, as_published, claims, difference, small_training
from finetrial.tasks.pycode import Pycode
from finetrial.tasks.pydoc_chat import PydocChat

A, B = "pydoc-chat", "pycode"
MENDED, PUBLISHED = "crossed", "published"
LENGTH = 160
PUBLISHED_RATES = {"full": FULL_RATES[1:2], "lora": LORA_RATES[:1]}  # one each
FLAW = "one path: the method is tied to the position"


def study() -> Study:
    """Four arms: the published path, and three paths that cross method and position."""
    arms = _arms()
    return as_published(
        "plasticity-stability", question="What can one path from full fine-tuning to LoRA say about their trade-off, "
                                         "and what do crossed paths say?",
        training=small_training(length=LENGTH),
        tasks=(TaskUse(name=A, task=PydocChat(max_reply_characters=240), num_val=40, num_test=150),
               TaskUse(name=B, task=Pycode(max_body_characters=240), num_val=40, num_test=150, max_new_tokens=32,
                       metrics=("nats-per-token",))),
        sequences=(Sequence(name=MENDED, tasks=(A, B)), Sequence(name=PUBLISHED, tasks=(A, B))),
        arms=arms, claims=_claims(arms), factors=("method", "rank", "path"), accept_threats=("unequal-tuning",),
        notes=("nothing was published but the path (gpt2, OASST1, CNN/DailyMail); here tiny-gpt, pydoc-chat and pycode",
               ("beside the crossed paths method-tied-to-position has nothing to say: alone, the published path is "
               "refused for it")))


def _arms() -> tuple[Arm, ...]:
    full, adapter = Full(), Lora(rank=8)
    return (_arm("full-lora-published", "full, then LoRA, as published", PUBLISHED, full, adapter),
            _arm("full-lora", "full, then LoRA", MENDED, full, adapter),
            _arm("full-full", "full, then full", MENDED, full, full),
            _arm("lora-lora", "LoRA, then the same LoRA", MENDED, adapter, adapter))


def _arm(name: str, label: str, sequence: str, first: Method, then: Method) -> Arm:
    carry = Carry.CONTINUE if first == then else Carry.MERGE
    grids = PUBLISHED_RATES if sequence == PUBLISHED else {"full": FULL_RATES, "lora": LORA_RATES}
    return arm_along(name, label, sequence,
                     {A: (Component(method=first),), B: (Component(method=then, carry=carry),)}, grids[first.kind],
                     learning_rates_for={B: grids[then.kind]})


def _claims(arms: tuple[Arm, ...]) -> tuple[PublishedClaim, ...]:
    def learns(left: str, right: str) -> Contrast:
        return difference(arms, left, right, B, metric="nats-per-token", margin=0.02)

    def forgets(left: str, right: str, expect: str) -> Contrast:
        return difference(arms, left, right, A, quantity="forgetting", metric="nats-per-token", expect=expect,
                          margin=0.02)

    path = "full-lora-published"
    return (
        *claims("learns", "One method learns the new task better: full fine-tuning.", NO_FIGURE, learns(path, BASE_ARM),
                {FLAW: learns("full-full", "lora-lora")}, note="the path alone is compared with the untouched base"),
        *claims("forgets", "It is less stable: it forgets more of the first task.", NO_FIGURE, None,
                {FLAW: forgets("full-full", "lora-lora", "greater")}),
        *claims("costs", "The other is computationally cheaper: LoRA keeps less optimizer state.", NO_FIGURE, None,
                {FLAW: difference(arms, "lora-lora", "full-full", B, quantity="cost", cost="optimizer_bytes",
                                  expect="less")}),
        *claims("position", "After full fine-tuning, LoRA on the second task keeps more of the first than full does.",
                NO_FIGURE, None, {FLAW: forgets("full-lora", "full-full", "less")}))
