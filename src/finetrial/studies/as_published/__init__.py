"""The built-in studies as they were published, small: one file for each, and what they share.

A published arm goes along a sequence of its own, on tasks that have the published flaws of data; the same arm with one
flaw mended goes along another, and the mended arms along the last. Figures are read from seed 0, as they were
published; what is mended is judged over three seeds. Sizes are a fraction of the published ones, and each study's notes
say of which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetrial.spec import Arm, Component, Contrast, PublishedClaim, Study
from finetrial.spec.claims import AS_PUBLISHED
from finetrial.train.config import Budget, Training

SIZE = "small"
SEEDS = (0, 1, 2)
EVERY_FLAW = "all of them"


def small_training(*, length: int = 128, batch: int = 4, steps: int = 40, **more: Any) -> Training:
    """40 steps of 4 rows of 128 tokens, without a learning curve; `more` are other settings."""
    return Training(budget=Budget(amount=steps, unit="steps"), sequence_length=length, batch_sequences=batch,
                    evaluations=0, **more)


def arm_along(name: str, label: str, sequence: str, components: Mapping[str, tuple[Component, ...]],
              rates: tuple[float, ...], **more: Any) -> Arm:
    """An arm of one sequence."""
    return Arm(name=name, label=label, components=dict(components), learning_rates=rates, sequences=(sequence,), **more)


def difference(study_arms: tuple[Arm, ...], left: str, right: str, task: str, **more: Any) -> Contrast:
    """Left minus right, each along its own sequence; the untouched base along the other's."""
    along = {arm.name: arm.sequences[0] for arm in study_arms}
    return Contrast(left=left, right=right, task=task, left_sequence=along.get(left, along.get(right, "")),
                    right_sequence=along.get(right, along.get(left, "")), **more)


def claims(name: str, claim: str, published: str, as_published: Contrast | None,
           mended: Mapping[str, Contrast], note: str = "") -> tuple[PublishedClaim, ...]:
    """One claim, listed once for each flaw with the contrast that is without it."""
    return tuple(PublishedClaim(name=f"{name}.{number}", claim=claim, published=published, flaw=flaw,
                                as_published=as_published, mended=contrast, note=note)
                 for number, (flaw, contrast) in enumerate(mended.items(), start=1))


def refused(name: str, claim: str, published: str, flaw: str, why: str) -> PublishedClaim:
    """A claim that finetrial cannot repeat, and why."""
    return PublishedClaim(name=name, claim=claim, published=published, flaw=flaw, untestable=why)


def as_published(name: str, **fields: Any) -> Study:
    """The study `NAME-as-published`, without hypotheses of its own: it has claims."""
    return Study(**{"name": name + AS_PUBLISHED, "scale": "embedded", "size": SIZE, "bases": ({"name": "tiny-gpt"},),
                    "training": small_training(), "seeds": SEEDS, **fields})
