"""Rows filled up to a multiple: the same loss and gradients, in shapes that come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from finetrial.models import blocks
from finetrial.tasks.encoded import TokenDataset
from finetrial.train.batch import Batch, make_batch, pair_batch
from finetrial.train.loss import summed_cross_entropy, summed_loss
from finetrial.train.widen import MULTIPLE, filler, widened


def _batch(family: str, packed: bool = False) -> Batch:
    generator = np.random.default_rng(0)
    rows = [generator.integers(5, 90, length).astype(np.int32) for length in (11, 7, 19)]
    if family == "t5":
        return pair_batch([rows[2], rows[0], rows[1]], rows, pad_id=0, start_id=0)
    data = TokenDataset(ids=np.concatenate(rows), loss_mask=np.ones(37, bool), offsets=np.array([0, 11, 18, 37]),
                        num_bytes=np.ones(3, np.int64), items=["a", "b", "c"], clusters=["a", "b", "c"])
    return make_batch(data, [(0, 1), (2,)] if packed else [(0,), (1,), (2,)])


@pytest.mark.parametrize(("family", "packed"), [("gpt2", False), ("gpt2", True), ("llama", True), ("t5", False)])
def test_padding_changes_no_loss_and_no_gradient(family: str, packed: bool, tiny_model: Any) -> None:
    model, batch = tiny_model(family), _batch(family, packed)
    wide = widened(batch)
    assert wide.input_ids.shape[1] == MULTIPLE and wide.num_tokens == batch.num_tokens
    assert wide.source_ids is None or wide.source_ids.shape[1] == MULTIPLE
    found = []
    for given in (batch, wide):
        model.zero_grad()
        loss = summed_loss(model, given)
        loss.backward()
        found.append((float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_row_keeps_to_the_model_s_positions() -> None:
    batch = _batch("gpt2")
    assert widened(batch, longest=24).input_ids.shape == batch.input_ids.shape
    assert widened(batch, longest=32).input_ids.shape[1] == 32
    assert torch.equal(widened(batch, longest=24).target_places, batch.target_places)


def test_only_low_precision_on_a_cpu_is_filled(tiny_model: Any) -> None:
    model, batch = tiny_model("gpt2"), _batch("gpt2")
    assert filler(model, torch.device("cpu"), "fp32")(batch) is batch
    assert filler(model, torch.device("cuda"), "bf16")(batch) is batch
    assert filler(model, torch.device("cpu"), "bf16")(batch).input_ids.shape[1] == MULTIPLE


def test_the_filled_chunk_of_targets_adds_nothing(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    weight = blocks.head(model).weight
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, weight.shape[1], generator=generator, requires_grad=True)
    targets = torch.randint(0, len(weight), (37,), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_cross_entropy(model, hidden, targets)
    loss.backward()
    theirs = torch.nn.functional.cross_entropy((hidden.bfloat16() @ weight.bfloat16().T).float(), targets, reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), rel=1e-3)
    (expected,) = torch.autograd.grad(theirs, hidden)
    assert hidden.grad is not None and hidden.grad.shape == hidden.shape
    torch.testing.assert_close(hidden.grad, expected, rtol=0.05, atol=2e-3)
