"""`hybrid` as it was published: LoRA and a new layer together, specific to a task or with the layer shared.

No results were published. Experiment 1: LoRA and layer are new for each task; experiment 2: LoRA is new, the layer of
the first task is used again. r = 16, alpha = 32, dropout 0.1, one rate, one seed, 2 epochs of batch 8. Here tiny-gpt,
`pycode` and `jscode`, 40 steps of 4 rows a task; what the two parts do apart is the study `hybrid` itself.
"""

from __future__ import annotations

from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.spec import Arm, Carry, Component, Contrast, Evaluation, PublishedClaim, Sequence, Study
from finetrial.spec.claims import NO_FIGURE
from finetrial.studies.arms import LORA_RATES
from finetrial.studies.as_published import arm_along, as_published, claims, difference, small_training
from finetrial.studies.as_published.lora_vs_layer import (
    JAVASCRIPT,
    LENGTH,
    MENDED,
    PUBLISHED,
    PYTHON,
    code_tasks,
)

ADAPTER = Lora(rank=16, alpha=32, dropout=0.1)


def study() -> Study:
    """Four arms: both experiments as published, and both with a chosen rate."""
    arms = tuple(_arm(f"{name}{suffix}", f"{label}{said}", sequence, carry, rates)
                 for suffix, said, sequence, rates in (("-published", ", as published", PUBLISHED, LORA_RATES[:1]),
                                                       ("", "", MENDED, LORA_RATES))
                 for name, label, carry in (("specific", "LoRA + layer, new for each task", Carry.FRESH),
                                            ("shared", "new LoRA, the first task's layer", Carry.FREEZE)))
    return as_published(
        "hybrid", question="Is a layer of its own for each task better than a shared one, as the published experiments "
                           "would have read and over several seeds and rates?",
        training=small_training(length=LENGTH),
        tasks=code_tasks(),
        sequences=tuple(Sequence(name=name, tasks=(PYTHON, JAVASCRIPT)) for name in (MENDED, PUBLISHED)),
        arms=arms, evaluation=Evaluation(routings=("latest", "oracle")), claims=_claims(arms),
        factors=("method", "sharing"), accept_threats=("unequal-tuning",),
        notes=("published: codet5-small, 8,000 rows a task, 2 epochs of batch 8; here tiny-gpt, 160 rows a task",))


def _arm(name: str, label: str, sequence: str, layer: Carry, rates: tuple[float, ...]) -> Arm:
    adapter = Component(method=ADAPTER, slot="adapter", carry=Carry.FRESH)
    block = Component(method=Layer(), slot="layer")
    later = Component(slot="layer", carry=layer) if layer is Carry.FREEZE else block.model_copy(update={"carry": layer})
    return arm_along(name, label, sequence, {PYTHON: (block, adapter), JAVASCRIPT: (later, adapter)}, rates)


def _claims(arms: tuple[Arm, ...]) -> tuple[PublishedClaim, ...]:
    def better(left: str, right: str, task: str, routing: str, suffix: str) -> Contrast:
        return difference(arms, left + suffix, right + suffix, task, routing=routing, metric="bleu", margin=0.01)

    def rows(name: str, claim: str, left: str, right: str, task: str, routing: str) -> tuple[PublishedClaim, ...]:
        return claims(name, claim, NO_FIGURE, better(left, right, task, routing, "-published"),
                      {"one seed": better(left, right, task, routing, "-published"),
                       "one seed, one learning rate": better(left, right, task, routing, "")})

    return (*rows("specific-javascript", "Task-specific layers beat a shared one on JavaScript.", "specific", "shared",
                  JAVASCRIPT, "latest"),
            *rows("shared-transfer", "The shared layer transfers: it beats task-specific ones on JavaScript.", "shared",
                  "specific", JAVASCRIPT, "latest"),
            *rows("shared-python", "The shared layer preserves knowledge: with the newest parts, Python stays better.",
                  "shared", "specific", PYTHON, "latest"))
