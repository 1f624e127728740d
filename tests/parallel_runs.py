"""Runs of training that one process or two can take: `tests/partner.py` runs them as rank 1."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import make_documents, make_pairs, make_tiny_model

from finetrial.methods.base import Component
from finetrial.methods.full import Full
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.models.params import frozen_digest, own
from finetrial.streams import Streams
from finetrial.train import precision
from finetrial.train.checkpoint import Checkpoints
from finetrial.train.config import Training
from finetrial.train.data_parallel import DataParallel
from finetrial.train.loop import train
from finetrial.train.loss import item_losses
from finetrial.train.outcome import Diverged, OutOfTime

ACCELERATOR = precision.accelerator
TRAINING = {"budget": "6 steps", "sequence_length": 40, "batch_sequences": 6, "clip_norm": 0.5, "evaluations": 3}


@dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    family: str = "gpt2"
    method: str = "full"
    training: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1e-2
    lora_dropout: float = 0.0
    micro_batch: int | None = None
    validation: tuple[float, ...] = ()  # what validation finds, in process 0
    validates: bool = False  # by the losses of the rows that are trained on
    checkpoints: Path | None = None
    expired: bool = False  # in process 0
    silent: int = 0  # rows of which no token is a target
    scaled: bool = False  # with a loss scaler, as fp16 has it on a GPU


@dataclass(frozen=True)
class Outcome:
    losses: list[float]
    norms: list[float]
    weights: dict[str, Any]
    result: Any
    frozen: tuple[str, str]  # the frozen weights' digest before and after


def run(setting: Setting, parallel: DataParallel | None = None) -> Outcome:
    """Train, and say what was seen; a run that diverges or is out of time says so in `result`."""
    alone = parallel is None or parallel.is_first
    model = make_tiny_model(setting.family)
    component = attached(model, setting)
    rows = make_pairs(30) if setting.family.startswith("t5") else make_documents(30)
    rows = replace(rows, loss_mask=rows.loss_mask & (np.arange(len(rows.loss_mask)) >= rows.offsets[setting.silent]))
    metrics: list[Mapping[str, Any]] = []
    found = iter(setting.validation)
    frozen = frozen_digest(model)

    def validate(step: int) -> float:
        assert alone or parallel.sharded, "the first process alone validates"
        return next(found) if setting.validation else float(item_losses(model, rows)[0].sum())

    scaling = patch.object(precision, "accelerator", scaled) if setting.scaled else contextlib.nullcontext()
    try:
        with scaling:
            result: Any = train(
                model, [component], rows, Training.model_validate({**TRAINING, **setting.training}), setting.rate, Streams(1),
                micro_batch=setting.micro_batch, on_metrics=metrics.append, validate=validate if setting.validation or setting.validates else None,
                checkpoints=Checkpoints(setting.checkpoints, every_seconds=0.0) if setting.checkpoints else None,
                deadline=0.0 if setting.expired and alone else 1e18, parallel=parallel)
    except (Diverged, OutOfTime) as error:
        result = repr(error)
    return Outcome([row["loss"] for row in metrics], [row["grad_norm"] for row in metrics],
                   {name: parameter.detach().clone() for name, parameter in component.parameters().items()}, result,
                   (frozen, frozen_digest(model)))


def scaled(device: str, wanted: str, *, keeps_casts: bool = True) -> Any:
    """An accelerator for a CPU that computes in fp32 and scales the loss as it does for fp16 on a GPU."""
    made = ACCELERATOR(device, "fp32", keeps_casts=keeps_casts)
    made.scaler, made.native_amp, made.state._mixed_precision = torch.amp.GradScaler("cpu"), True, "fp16"
    made.autocast = contextlib.nullcontext
    precision.start_scaling(made)
    return made


def attached(model: Any, setting: Setting) -> Component:
    """What the setting trains, in the model."""
    methods = {"full": Full(), "layer": Layer(init="random", position="start"),
               "lora": Lora(rank=4, targets="all-linear", dropout=setting.lora_dropout)}
    component = methods[setting.method].attach(model, Streams(1), "main")
    own(model, [component])
    return component


def assert_equal(found: Outcome, expected: Outcome) -> None:
    """Losses and norms step by step; weights to a part of a step, which Adam makes of any gradient however small."""
    assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    assert found.norms == pytest.approx(expected.norms, rel=1e-3)
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in found.weights.items():
        torch.testing.assert_close(weight, expected.weights[name], rtol=1e-3, atol=1e-3)
    norms = [math.sqrt(sum(float(weight.double().pow(2).sum()) for weight in each.weights.values()))
             for each in (found, expected)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert [point.value for point in found.result.curve] == pytest.approx([p.value for p in expected.result.curve], rel=1e-5)
    for name in ("steps", "tokens", "target_tokens", "epochs", "skipped_steps", "optimizer_bytes"):
        assert getattr(found.result, name) == getattr(expected.result, name)
