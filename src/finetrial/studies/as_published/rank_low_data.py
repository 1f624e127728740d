"""`rank-low-data` as it was published: the base, LoRA r=8 and LoRA r=32 on 100 examples, by ROUGE on 10 articles.

Published: TinyLlama-1.1B-Chat, CNN/DailyMail; loss on the whole sequence, one seed, one rate; the r=32 adapter was put
on a model that held the r=8 one; test prompts were cut on the right, so that long articles lost "Summary:". Here
tiny-gpt and `pydoc-summary`; 100 rows, 10 test items; prompts are cut to 96 tokens, the published ones to 512.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetrial.methods.lora import Lora
from finetrial.spec import Arm, Component, Contrast, PublishedClaim, Sequence, Study, TaskUse
from finetrial.spec.study import BASE_ARM
from finetrial.studies.arms import LORA_RATES
from finetrial.studies.as_published import (
    EVERY_FLAW,
    arm_along,
    as_published,
    claims,
    difference,
    refused,
    small_training,
)
from finetrial.tasks.flaws import DataFlaws
from finetrial.tasks.pydoc_summary import PydocSummary

SUMMARIES = PydocSummary(max_summary_characters=120)
NEW, WHOLE, CUT_10, CUT_150, CUED_10 = "pydoc-summary", "whole-sequence", "10-cut", "150-cut", "10-with-cue"
MENDED, PUBLISHED = "mended", "published"
ROWS, LENGTH, NEW_TOKENS = 100, 128, 32
ONE_RATE = LORA_RATES[:1]  # of the published arms
METRICS = ("rouge-1", "rouge-2", "continuation-rate")


def study() -> Study:
    """Seven arms: two published, three with a flaw mended, two mended."""
    arms = _arms()
    return as_published(
        "rank-low-data", question="Does LoRA r=8 learn to summarize from 100 examples, and does r=32 collapse, as "
                                  "published and without the flaws of that comparison?",
        training=small_training(length=LENGTH, packing=False),
        tasks=(TaskUse(name=NEW, task=SUMMARIES, num_train=ROWS, num_val=40, num_test=150, max_new_tokens=NEW_TOKENS,
                       metrics=METRICS),
               TaskUse(name=WHOLE, task=SUMMARIES, num_val=20, num_test=20, max_new_tokens=NEW_TOKENS, evaluate=False,
                       flaws=DataFlaws(first_training_rows=ROWS, prompt_scored=True)),
               *(TaskUse(name=name, task=SUMMARIES, role="outside", num_val=2, num_test=items, metrics=METRICS,
                         max_new_tokens=NEW_TOKENS, flaws=DataFlaws(prompt_cut_on_the_right=is_cut))
                 for name, items, is_cut in ((CUT_10, 10, True), (CUT_150, 150, True), (CUED_10, 10, False)))),
        sequences=(Sequence(name=MENDED, tasks=(NEW,), evaluate=(NEW, CUT_10)),
                   Sequence(name=PUBLISHED, tasks=(WHOLE,), evaluate=(CUT_10, CUT_150, CUED_10))),
        arms=arms, claims=_claims(arms), factors=("method", "rank"),
        accept_threats=("double-wrapping", "truncated-cues", "unequal-tuning"),
        notes=(("published: TinyLlama-1.1B-Chat and CNN/DailyMail; here tiny-gpt and pydoc-summary, the same 100 rows "
               "and 10 test items"),
               "the published r=32 adapter lay on a trained r=8 one; here both are trained together",
               "outputs are new tokens only: a prompt that is not stripped from an output cannot be repeated"))


def _arms() -> tuple[Arm, ...]:
    r8, r32 = _one(Lora(rank=8)), _one(Lora(rank=32))
    wrapped = {"*": (Component(method=Lora(rank=8), slot="default"), Component(method=Lora(rank=32), slot="wider"))}
    return (arm_along("r8-published", "LoRA r=8, as published", PUBLISHED, r8, ONE_RATE),
            arm_along("r32-published", "LoRA r=32 on a wrapped model", PUBLISHED, wrapped, ONE_RATE),
            arm_along("r32-alone", "LoRA r=32, wrapped once", PUBLISHED, r32, ONE_RATE),
            arm_along("r8-tuned", "LoRA r=8, rate chosen", PUBLISHED, r8, LORA_RATES),
            arm_along("r8-summary-loss", "LoRA r=8, loss on the summary", MENDED, r8, ONE_RATE),
            arm_along("lora-r8", "LoRA r=8, mended", MENDED, r8, LORA_RATES),
            arm_along("lora-r32", "LoRA r=32, mended", MENDED, r32, LORA_RATES))


def _one(method: Lora) -> Mapping[str, tuple[Component, ...]]:
    return {"*": (Component(method=method),)}


def _claims(arms: tuple[Arm, ...]) -> tuple[PublishedClaim, ...]:
    def better(left: str, right: str, task: str = CUT_10, metric: str = "rouge-2", expect: str = "greater") -> Contrast:
        return difference(arms, left, right, task, metric=metric, expect=expect, margin=0.01)

    items, cut, loss = "10 test articles, one seed", "prompts cut on the right: no cue", "loss on the whole sequence"
    return (
        *claims("r8-beats-base", "LoRA r=8 on 100 examples beats the base in ROUGE-2.", ".104 against .092 (+13 %)",
                better("r8-published", BASE_ARM),
                {items: better("r8-published", BASE_ARM, CUT_150), cut: better("r8-published", BASE_ARM, CUED_10),
                 loss: better("r8-summary-loss", BASE_ARM),
                 "one learning rate, not chosen": better("r8-tuned", BASE_ARM),
                 EVERY_FLAW: better("lora-r8", BASE_ARM, NEW)}),
        *claims("collapse", "At 100 examples r=32 collapses: it is worse than r=8 in ROUGE-1.", ".135 against .224",
                better("r32-published", "r8-published", metric="rouge-1", expect="less"),
                {"the r=32 adapter lies on a wrapped model":
                 better("r32-alone", "r8-published", metric="rouge-1", expect="less"),
                 items: better("r32-published", "r8-published", CUT_150, "rouge-1", "less"),
                 cut: better("r32-published", "r8-published", CUED_10, "rouge-1", "less"),
                 EVERY_FLAW: better("lora-r32", "lora-r8", NEW, "rouge-1", "less")}),
        *claims("continuation", "The base treats the prompt as a text to continue; LoRA r=8 does so less.",
                "no figure published", better("r8-published", BASE_ARM, metric="continuation-rate"),
                {cut: better("r8-published", BASE_ARM, CUED_10, "continuation-rate"),
                 EVERY_FLAW: better("lora-r8", BASE_ARM, NEW, "continuation-rate")}),
        refused("stripping", "ROUGE of outputs that begin with their prompt.", "part of all figures",
                "the prompt was not stripped from outputs where it had been cut",
                "finetrial keeps new tokens only; prompt-in-scored-text sees outputs that begin with their input"))
