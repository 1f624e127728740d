"""`perplexity` as it was published: full fine-tuning against LoRA r=8 and r=32, by perplexity on "held-out" rows.

Published: gpt2, replies of OASST1; full at 256 tokens and batch 16, LoRA at 512 and 64 (a quarter of the updates), one
learning rate each; padding trained on; held out were the first 1,000 rows of the training set. Here tiny-gpt,
`pydoc-chat`; 128 and 256 tokens, batch 4 and 16, 160 training rows seen once, of which 100 are "held out".
"""

from __future__ import annotations

from finetrial.methods.base import Method
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.spec import Arm, Component, Contrast, PublishedClaim, Sequence, Study, TaskUse
from finetrial.studies.arms import FULL_RATES, LORA_RATES
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
from finetrial.tasks.pydoc_chat import PydocChat
from finetrial.train.config import Training

CHAT = PydocChat(max_reply_characters=240)  # replies that fit into 128 tokens
NEW, HEAD = "pydoc-chat", "training-rows"
SHORT, LONG, ROWS = 128, 256, 160
PADDED_SHORT, PADDED_LONG, PLAIN_SHORT, PLAIN_LONG = "padded-128", "padded-256", "plain-128", "plain-256"
MENDED = "mended"
FULL_RATE, LORA_RATE = FULL_RATES[1:2], LORA_RATES[:1]  # the published arms' only ones
PUBLISHED_TARGETS = ("c_attn", "c_proj")  # c_proj names the MLP's projection too

SMALL_BATCH = small_training(length=SHORT, batch=4, steps=40, packing=False)
LARGE_BATCH = small_training(length=LONG, batch=16, steps=10, packing=False)


def study() -> Study:
    """Eleven arms: three published, five with a flaw mended, three mended."""
    arms = _arms()
    return as_published(
        "perplexity", question="How much lower is the perplexity of full fine-tuning than that of LoRA, and of LoRA "
                               "r=32 than of r=8, as published and without the flaws of that comparison?",
        tasks=(TaskUse(name=NEW, task=CHAT, num_val=40, num_test=150, metrics=("perplexity", "ppl-document-mean")),
               *(_training_rows(name, length, padded) for name, length, padded in (
                   (PADDED_SHORT, SHORT, True), (PADDED_LONG, LONG, True), (PLAIN_SHORT, SHORT, False),
                   (PLAIN_LONG, LONG, False))),
               TaskUse(name=HEAD, task=CHAT, role="outside", num_val=2, num_test=100,
                       metrics=("perplexity", "ppl-document-mean"), flaws=DataFlaws(test_rows_from_training=True))),
        sequences=(Sequence(name=MENDED, tasks=(NEW,), evaluate=(NEW,)),
                   *(Sequence(name=name, tasks=(name,), evaluate=(HEAD, NEW)) for name in (PADDED_SHORT, PADDED_LONG)),
                   *(Sequence(name=name, tasks=(name,), evaluate=(HEAD,)) for name in (PLAIN_SHORT, PLAIN_LONG))),
        arms=arms, claims=_claims(arms), factors=("method", "rank", "targets"),
        accept_threats=("held-out-rows-in-training", "padding-trained-on", "undeclared-difference", "unequal-tuning"),
        notes=(("published: gpt2, 1,000 rows called held out, lengths 256 and 512, batches 16 and 64; here tiny-gpt, "
               "100, 128 and 256, 4 and 16, each row seen once"),
               "the published learning rates are not known; here one for each method, from its mended grid"))


def _training_rows(name: str, length: int, padded: bool) -> TaskUse:
    """The rows that the published arms train on; never scored."""
    return TaskUse(name=name, task=CHAT, num_val=20, num_test=20, max_tokens=length, evaluate=False,
                   flaws=DataFlaws(first_training_rows=ROWS, padding_scored=padded))


def _arms() -> tuple[Arm, ...]:
    full, r8, r32 = Full(), _lora(8), _lora(32)
    mended = small_training()
    return (_arm("full-published", "full, as published", PADDED_SHORT, full, FULL_RATE, SMALL_BATCH),
            _arm("r8-published", "LoRA r=8, as published", PADDED_LONG, r8, LORA_RATE, LARGE_BATCH),
            _arm("r32-published", "LoRA r=32, as published", PADDED_LONG, r32, LORA_RATE, LARGE_BATCH),
            _arm("r8-equal-training", "LoRA r=8, full's length and batch", PADDED_SHORT, r8, LORA_RATE,
                 SMALL_BATCH),
            _arm("full-unpadded", "full, padding not trained on", PLAIN_SHORT, full, FULL_RATE, SMALL_BATCH),
            _arm("r8-unpadded", "LoRA r=8, padding not trained on", PLAIN_LONG, r8, LORA_RATE, LARGE_BATCH),
            _arm("full-tuned", "full, rate chosen", PADDED_SHORT, full, FULL_RATES, SMALL_BATCH),
            _arm("r8-tuned", "LoRA r=8, rate chosen", PADDED_LONG, r8, LORA_RATES, LARGE_BATCH),
            _arm("full", "full, mended", MENDED, full, FULL_RATES, mended),
            _arm("lora-r8", "LoRA r=8, mended", MENDED, Lora(rank=8), LORA_RATES, mended),
            _arm("lora-r32", "LoRA r=32, mended", MENDED, Lora(rank=32), LORA_RATES, mended))


def _lora(rank: int) -> Lora:
    return Lora(rank=rank, targets=PUBLISHED_TARGETS)


def _arm(name: str, label: str, sequence: str, method: Method, rates: tuple[float, ...], training: Training) -> Arm:
    return arm_along(name, label, sequence, {"*": (Component(method=method),)}, rates, training=training)


def _claims(arms: tuple[Arm, ...]) -> tuple[PublishedClaim, ...]:
    def lower(left: str, right: str, task: str = HEAD) -> Contrast:
        return difference(arms, left, right, task, metric="perplexity", margin=1.0)

    held_out = "\"held-out\" rows from the training set"
    return (
        *claims("full-beats-r8", "Full fine-tuning reaches a lower perplexity than LoRA r=8.", "13.97 against 25.7",
                lower("full-published", "r8-published"),
                {held_out: lower("full-published", "r8-published", NEW),
                 "unequal length and batch: a quarter of the updates": lower("full-published", "r8-equal-training"),
                 "padding trained on": lower("full-unpadded", "r8-unpadded"),
                 "one learning rate, not chosen": lower("full-tuned", "r8-tuned"),
                 EVERY_FLAW: lower("full", "lora-r8", NEW)}),
        *claims("r32-beats-r8", "LoRA r=32 reaches a lower perplexity than LoRA r=8.", "20.2 against 25.7",
                lower("r32-published", "r8-published"),
                {held_out: lower("r32-published", "r8-published", NEW), EVERY_FLAW: lower("lora-r32", "lora-r8", NEW)}),
        refused("parameters", "LoRA r=8 trains 1-2M parameters, r=32 4-5M.", "1-2M and 4-5M", "parameters were guessed",
                "of gpt2; finetrial counts them from the configuration: 0.81M and 3.24M, because c_proj names the "
                "MLP's projection too"),
        refused("memory", "Full fine-tuning of gpt2-medium does not fit into 6 GB.", "did not fit", "",
                "this base has 5 million parameters; of gpt2-medium this tells it: finetrial plan perplexity --scale full "
                "--set bases.gpt2.source=openai-community/gpt2-medium --device 6GB"))
