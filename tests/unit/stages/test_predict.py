"""The check of a base that predicts for the first time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finetrial.errors import ModelError
from finetrial.models import blocks
from finetrial.stages.predict import CHECKED_TOKENS, checked_part
from finetrial.tasks.encoded import TokenDataset
from finetrial.train.batch import make_batch
from finetrial.train.loss import check_base

Documents = Callable[..., TokenDataset]


def checked(model: nn.Module, dataset: TokenDataset) -> list[torch.Size]:
    """The shapes of the logits that the model's own head makes in the check."""
    shapes: list[torch.Size] = []
    part = checked_part(dataset)
    assert part is not None
    handle = model.get_submodule("lm_head").register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    check_base(model, make_batch(part, [(0,)], start_id=blocks.start_id(model)))
    handle.remove()
    return shapes


def test_a_base_is_checked_on_a_few_tokens_of_one_row(tiny_model: Any, tiny_documents: Documents, architecture: str) -> None:
    """Whatever the rows' lengths, and also where their targets are few and at the end."""
    data = tiny_documents(5, shortest=40, longest=60)
    data.loss_mask[:] = False
    model = tiny_model(architecture)
    assert {shape[:2] for shape in checked(model, data)} == {(1, CHECKED_TOKENS)}
    model.lm_head.register_forward_hook(lambda module, inputs, output: 5 * torch.tanh(output / 5))
    with pytest.raises(ModelError, match="the model's own loss is"):
        checked(model, data)


def test_of_a_pair_both_sides_are_cut(tiny_model: Any, tiny_pairs: Documents, encoder_decoder: str) -> None:
    data = tiny_pairs(3, shortest=120, longest=120, seed=2)
    part = checked_part(data)
    assert part is not None and part.source_ids is not None
    whole = int(np.diff(data.offsets).argmax())
    assert part.row(0) == data.row(whole)[:CHECKED_TOKENS] and part.source(0) == data.source(whole)[:CHECKED_TOKENS]
    assert {shape[:2] for shape in checked(tiny_model(encoder_decoder), data)} == {(1, CHECKED_TOKENS)}


def test_rows_of_one_token_cannot_be_checked() -> None:
    one = TokenDataset(np.array([3], np.int32), np.array([True]), np.array([0, 1]), np.array([1]), ["a"], ["a"])
    assert checked_part(one) is None
