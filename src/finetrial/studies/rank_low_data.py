"""How much rank does a small data set bear? LoRA rank crossed with the number of training examples.

    finetrial run rank-low-data --size demo      rank 2, 8, 32 at 100 examples, three seeds
    finetrial run rank-low-data                  rank {2, 8, 32} x {30, 100, 300, 1000} examples
    finetrial run rank-low-data --size thorough  rank {1, 2, 4, 8, 16, 32, 64} x {30, 100, 300, 1000, 3000}

`pydoc-summary` (long description -> one line) on `tiny-gpt`; old text: held-out Python text. Every cell takes the same
number of steps, so fewer examples mean more epochs; training stops early on validation. A seed draws its subset anew;
subsets are nested over the number of examples and shared by all arms. A second sequence makes the base an
instruction-tuned one first, by full fine-tuning on `pydoc-chat`.
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.methods.full import Full
from finetrial.spec import (
    Arm,
    Base,
    Component,
    Contrast,
    Controls,
    Hypothesis,
    PositiveControl,
    Sequence,
    Study,
    TaskUse,
)
from finetrial.studies.arms import FULL_RATES, LORA_RATES, lora
from finetrial.studies.as_published import rank_low_data
from finetrial.studies.base import BuiltIn
from finetrial.tasks.pydoc_chat import PydocChat
from finetrial.tasks.pydoc_summary import PydocSummary
from finetrial.tasks.python_text import PythonText
from finetrial.train.config import Budget, Training

NEW, CHAT, OLD = "pydoc-summary", "pydoc-chat", "python-text"
PLAIN, INSTRUCTED = "plain", "instructed"
GRIDS = {"demo": ((2, 8, 32), (100,)), "standard": ((2, 8, 32), (30, 100, 300, 1000)),
         "thorough": ((1, 2, 4, 8, 16, 32, 64), (30, 100, 300, 1000, 3000))}


class RankLowData(BuiltIn):
    """The study of rank and data."""

    summary: ClassVar[str] = "LoRA rank against the number of examples: how much rank does a small data set bear?"

    def make(self, scale: str, size: str) -> Study:
        """The embedded study at one of three sizes."""
        ranks, counts = GRIDS[size]
        demo = size == "demo"
        return Study(
            name="rank-low-data", scale="embedded", size=size,
            question="Can a small model be steered from continuation to summarization with few trainable parameters, "
                     "and how does rank matter when examples are few?",
            bases=(Base(name="tiny-gpt"),),
            tasks=(TaskUse(name=NEW, task=PydocSummary(), num_val=40, num_test=150, max_new_tokens=48),
                   TaskUse(name=CHAT, task=PydocChat(), num_val=20, num_test=150, evaluate=False),
                   TaskUse(name=OLD, task=PythonText(), role="outside", num_val=20, num_test=150, max_tokens=128)),
            sequences=(Sequence(name=PLAIN, tasks=(NEW,)), *(() if demo else
                                                           (Sequence(name=INSTRUCTED, tasks=(CHAT, NEW)),))),
            arms=tuple(_arm(rank, count) for rank in ranks for count in counts),
            controls=Controls(reference="r8-n100", positive=PositiveControl(arm="r8-n100", task=OLD)),
            hypotheses=_hypotheses(size),
            training=Training(budget=Budget(amount=40, unit="steps"), sequence_length=192,
                              batch_sequences=4, evaluations=6, early_stopping=3),
            seeds=tuple(range(3 if demo else 5)),
            factors=("rank", "num_train"),
            notes=("tiny-gpt has 5 million parameters: results on it are results on a tiny model",))

    def make_as_published(self) -> Study:
        """The published comparison on ten articles and its flaws."""
        return rank_low_data.study()


def _arm(rank: int, count: int) -> Arm:
    """One cell of the grid; rank 8 at 100 examples also starts from the instruction-tuned base."""
    chat = (Component(method=Full(), slot="base"),)
    return Arm(name=f"r{rank}-n{count}", label=f"LoRA r={rank}, {count} examples",
               components={CHAT: chat, NEW: (Component(method=lora(rank), slot="adapter"),)},
               learning_rates=LORA_RATES, learning_rates_for={CHAT: (FULL_RATES[1],)},
               sequences=() if (rank, count) == (8, 100) else (PLAIN,), num_train={NEW: count},
               factors={"rank": rank, "num_train": count})


def _hypotheses(size: str) -> tuple[Hypothesis, ...]:
    """Fixed before the run."""
    beats = Hypothesis(
        name="H1", statement="LoRA r=8 at 100 examples writes better summaries (ROUGE-L) than the untouched base.",
        contrast=Contrast(left="r8-n100", right="base", task=NEW, sequence=PLAIN, expect="greater", margin=0.01))
    collapse = Hypothesis(
        name="H2", statement="At 100 examples, r=32 is worse than r=8 (ROUGE-L).",
        contrast=Contrast(left="r32-n100", right="r8-n100", task=NEW, sequence=PLAIN, expect="less", margin=0.01))
    if size == "demo":
        return beats, collapse
    counts = GRIDS[size][1]
    overtakes = Hypothesis(
        name="H3", statement="There is a number of examples at which r=32 overtakes r=8 (ROUGE-L).",
        any_of=tuple(Contrast(left=f"r32-n{count}", right=f"r8-n{count}", task=NEW, sequence=PLAIN, expect="greater",
                              margin=0.01) for count in counts if count > 100))
    continues = Hypothesis(
        name="H4", statement="An instruction-tuned base lowers the continuation rate of r=8 at 100 examples.",
        contrast=Contrast(left="r8-n100", right="r8-n100", task=NEW, metric="continuation-rate", sequence=INSTRUCTED,
                          right_sequence=PLAIN, expect="greater", margin=0.02))
    return beats, collapse, overtakes, continues
