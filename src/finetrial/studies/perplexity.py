"""LoRA against full fine-tuning by perplexity: when does LoRA approach full fine-tuning, and where does it fall short?

    finetrial run perplexity --size demo        8.5 minutes on 2 cores without bf16 instructions, other work beside it
    finetrial run perplexity                    5 arms with the base, 5 seeds
    finetrial run perplexity --size thorough    hours: rank {1, 8, 32, 128} x {attention, all linear}

New task: `pydoc-chat` (function -> documentation, reply tokens only). Old domain: held-out Python source, never trained
on here. Learning rates are crossed with seeds, three per arm, each grid centred for its method: full fine-tuning ten
times lower than LoRA (Biderman et al. 2024, "LoRA Learns Less and Forgets Less", and Schulman et al. 2025 report the
same ratio; the third hypothesis tests it here).
"""

from __future__ import annotations

from typing import ClassVar

from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.spec import Arm, Base, Component, Contrast, Controls, Hypothesis, PositiveControl, Study, TaskUse
from finetrial.studies.as_published import perplexity
from finetrial.studies.base import BuiltIn
from finetrial.tasks.pydoc_chat import PydocChat
from finetrial.tasks.python_text import PythonText
from finetrial.train.config import Budget, Training

NEW, OLD = "pydoc-chat", "python-text"
FULL_RATES = (1e-4, 3e-4, 1e-3)
LORA_RATES = (1e-3, 3e-3, 1e-2)


class Perplexity(BuiltIn):
    """The study of STUDY `perplexity`."""

    summary: ClassVar[str] = "LoRA against full fine-tuning by perplexity: what is learned, what is forgotten"

    def make(self, scale: str, size: str) -> Study:
        """The embedded study at one of three sizes."""
        return Study(
            name="perplexity", scale="embedded", size=size,
            question="When, why and how does LoRA approach full fine-tuning, and where does it fall short?",
            bases=(Base(name="tiny-gpt"),),
            tasks=(TaskUse(name=NEW, task=PydocChat(), num_val=40 if size == "demo" else 60,
                           num_test=150 if size == "demo" else 200,
                           metrics=("nats-per-token", "perplexity", "ppl-document-mean", "bits-per-byte")),
                   TaskUse(name=OLD, task=PythonText(), role="outside", num_val=40, num_test=150,
                           max_tokens=128, metrics=("nats-per-token", "perplexity", "bits-per-byte", *(
                               () if size == "demo" else ("kl-from-base",))))),
            arms=_arms(size),
            controls=Controls(reference="full", positive=PositiveControl(arm="full", task=OLD)),
            hypotheses=_hypotheses(size),
            training=Training(budget=Budget(amount=40_000 if size == "demo" else 100_000, unit="tokens"),
                              sequence_length=256, batch_sequences=4 if size == "demo" else 8),
            seeds=tuple(range(3 if size == "demo" else 5)),
            factors=("method", "rank", "targets"),
            notes=("tiny-gpt has 5 million parameters: results on it are results on a tiny model",))

    def make_as_published(self) -> Study:
        """The published comparison and its five flaws."""
        return perplexity.study()


def _arm(name: str, method: Full | Lora, rates: tuple[float, ...], label: str) -> Arm:
    return Arm(name=name, label=label, components={"*": (Component(method=method),)}, learning_rates=rates)


def _lora(rank: int, targets: str = "attention") -> Arm:
    suffix = "" if targets == "attention" else "-all"
    where = "attention" if targets == "attention" else "all linear layers"
    return _arm(f"lora-r{rank}{suffix}", Lora(rank=rank, targets=targets), LORA_RATES, f"LoRA r={rank}, {where}")


def _arms(size: str) -> tuple[Arm, ...]:
    full = _arm("full", Full(), FULL_RATES, "full fine-tuning")
    if size == "demo":
        return (full, _lora(8))
    if size == "standard":
        return (full, _lora(8), _lora(32), _lora(8, "all-linear"))
    return (full, *(_lora(rank, targets) for targets in ("attention", "all-linear") for rank in (1, 8, 32, 128)))


def _hypotheses(size: str) -> tuple[Hypothesis, ...]:
    """Fixed before the run. Scores are signed: higher is better, so lower NLL is `greater`."""
    learns_more = Hypothesis(
        name="H1", statement="Full fine-tuning reaches a lower held-out loss than LoRA r=8.",
        contrast=Contrast(left="full", right="lora-r8", task=NEW, expect="greater", margin=0.02))
    rank_helps = Hypothesis(
        name="H2", statement="LoRA r=32 reaches a lower held-out loss than LoRA r=8.",
        contrast=Contrast(left="lora-r32", right="lora-r8", task=NEW, expect="greater", margin=0.02))
    ratio = Hypothesis(
        name="H3", statement="The best learning rate of LoRA r=8 is 5 to 20 times that of full fine-tuning.",
        contrast=Contrast(left="lora-r8", right="full", quantity="learning-rate-ratio", expect="within",
                          bounds=(5.0, 20.0)))
    forgets_less = Hypothesis(
        name="H4", statement="LoRA r=8 forgets less of the old domain than full fine-tuning at matched plasticity.",
        contrast=Contrast(left="lora-r8", right="full", quantity="forgetting-at-matched-plasticity", task=OLD,
                          learned=NEW, expect="less", margin=0.02))
    return (learns_more, ratio, forgets_less) if size == "demo" else (learns_more, rank_helps, ratio, forgets_less)
