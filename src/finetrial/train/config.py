"""What one run of training is, as the study writes it. No torch here: plans are made from it.

The learning rate is not part of it: it belongs to the cell's point, crossed with seeds.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_serializer, model_validator

from finetrial.settings import Settings

Unit = Literal["steps", "tokens", "epochs"]
Precision = Literal["fp32", "bf16", "fp16"]

EIGHT_BIT = "paged_adamw_8bit"  # Dettmers et al. 2022 (arXiv 2110.02861); paged: 2023 (arXiv 2305.14314), section 3
BITSANDBYTES = "bitsandbytes"  # the package of that optimizer, and of bases in 4 bits
EXECUTION = ("activation_checkpointing",)  # settings that change no result

_BUDGET = re.compile(r"\s*(\d+)\s*([kM]?)\s+(step|token|epoch)s?\s*")
_FACTORS = {"": 1, "k": 1_000, "M": 1_000_000}
_EXPECTED = "a budget such as '80 steps', '75k tokens' or '2 epochs'"


class Budget(Settings):
    """How long to train: a number of optimizer steps, of tokens seen (padding not counted) or of epochs.

    Written and dumped as one text, `75k tokens`. The unit is part of the identity: `1 epochs` and the number of steps
    it comes to are two budgets.
    """

    amount: int = Field(gt=0)
    unit: Unit

    @model_validator(mode="wrap")
    @classmethod
    def _from_text(cls, value: Any, handler: ModelWrapValidatorHandler[Budget]) -> Budget:
        if isinstance(value, str):
            match = _BUDGET.fullmatch(value)
            if match is None:
                raise ValueError(f"{value!r} is not {_EXPECTED}")
            number, factor, unit = match.groups()
            value = {"amount": int(number) * _FACTORS[factor], "unit": f"{unit}s"}
        elif isinstance(value, (int, float)):
            raise ValueError(f"a budget has a unit: write '{value} steps', '{value} tokens' or '{value} epochs'")
        return handler(value)

    @model_serializer
    def __str__(self) -> str:
        for suffix, factor in (("M", 1_000_000), ("k", 1_000)):
            if self.amount % factor == 0:
                return f"{self.amount // factor}{suffix} {self.unit}"
        return f"{self.amount} {self.unit}"


class Training(Settings):
    """The training recipe shared by every arm of a study.

    `batch_sequences` rows of `sequence_length` tokens make one optimizer step, whatever the micro-batch. With `packing`
    a row holds several documents that do not see each other; without, one document. `warmup` and `final` are fractions:
    of the steps, and of the peak learning rate at which the schedule ends. `dropout` acts in modules that are trained
    as a whole; a frozen base never drops. `evaluations` validation points, equally spaced, the last one at the end, which there is always: 0 is as 1.
    `paged_adamw_8bit` is AdamW with its moments in 8 bits, of CUDA devices. With `activation_checkpointing` a block keeps
    its input alone for the backward pass and is computed again then: how a result is computed, no part of what it is.
    """

    budget: Budget = Budget(amount=1, unit="epochs")
    sequence_length: int = Field(256, gt=1)
    batch_sequences: int = Field(8, gt=0)
    packing: bool = True
    optimizer: Literal["adamw", "muon", "paged_adamw_8bit"] = "adamw"
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    warmup: float = Field(0.1, ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = Field(0.0, ge=0, le=1)
    clip_norm: float | None = Field(1.0, gt=0)
    precision: Precision = "fp32"
    dropout: float = Field(0.0, ge=0, lt=1)
    evaluations: Annotated[int, Field(ge=0)] = 4
    early_stopping: Annotated[int, Field(gt=0)] | None = None
    activation_checkpointing: bool = False

    @model_validator(mode="after")
    def _combinations(self) -> Training:
        if self.optimizer == "muon" and self.precision == "fp16":
            raise ValueError("optimizer 'muon' trains in fp32 or bf16, not in fp16: its two optimizers would share one "
                             "loss scaler")
        return self

    def identity(self, *, exclude_defaults: bool = False) -> dict[str, Any]:
        """JSON-like content, all of it that results depend on."""
        return self.model_dump(mode="json", exclude=set(EXECUTION), exclude_defaults=exclude_defaults)

    def learning_rate_at(self, step: int, num_steps: int, peak: float) -> float:
        """The learning rate of step `step` (0-based) of `num_steps`: linear warm-up, then the schedule.

        Warm-up takes ceil(warmup * num_steps) steps and its first step is already above zero, (step + 1) / warm-up.
        After it, with x running from 0 to 1 over the remaining steps, cosine: final + (1 - final) (1 + cos(pi x)) / 2
        (Loshchilov & Hutter 2017, eq. 5); linear: 1 - (1 - final) x.
        """
        warmup_steps = math.ceil(self.warmup * num_steps)
        if step < warmup_steps:
            return peak * (step + 1) / warmup_steps
        x = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        if self.schedule == "cosine":
            return peak * (self.final + (1 - self.final) * (1 + math.cos(math.pi * x)) / 2)
        if self.schedule == "linear":
            return peak * (1 - (1 - self.final) * x)
        return peak
