"""The divergence of an adapted model from its base, and how far its weights have moved."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model

from finetrial.methods.lora import Lora
from finetrial.models.change import weight_changes
from finetrial.streams import Streams
from finetrial.tasks.encoded import TokenDataset
from finetrial.train import divergence
from finetrial.train.divergence import item_divergences


def dataset() -> TokenDataset:
    generator = np.random.default_rng(0)
    lengths = [7, 12, 5]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    mask = np.ones(offsets[-1], dtype=bool)
    mask[:3] = False  # a prompt
    return TokenDataset(ids=generator.integers(1, 80, offsets[-1]).astype(np.int32), loss_mask=mask, offsets=offsets,
                        items=("a", "b", "c"), clusters=("a", "b", "c"), num_bytes=np.array([7, 12, 5]))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_it_is_the_divergence_of_the_models_own_distributions(architecture: str) -> None:
    base, data = make_tiny_model(architecture).eval(), dataset()
    adapted = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    sums, counts = item_divergences(base, adapted, data)
    for row, name in enumerate(data.items):
        own = slice(data.offsets[row], data.offsets[row + 1])
        ids = torch.from_numpy(data.ids[own].astype(np.int64))[None]
        with torch.no_grad():
            expected, found = (model(ids).logits[0, :-1].log_softmax(-1) for model in (base, adapted))
        places = torch.from_numpy(data.loss_mask[own][1:].copy())
        whole = torch.nn.functional.kl_div(found, expected, log_target=True, reduction="none").sum(-1)[places].sum()
        assert sums[row] == pytest.approx(float(whole), rel=1e-4), name
    assert counts.tolist() == [4, 11, 4]


def test_a_model_does_not_diverge_from_itself() -> None:
    base = make_tiny_model("gpt2").eval()
    assert item_divergences(base, copy.deepcopy(base), dataset())[0].tolist() == [0.0, 0.0, 0.0]
    assert set(weight_changes(base, copy.deepcopy(base)).values()) == {0.0}


def test_a_batch_that_memory_does_not_suffice_for_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = make_tiny_model("gpt2").eval(), dataset()
    adapted = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    expected, compute, sizes = item_divergences(base, adapted, data), divergence.target_states, []

    def small(model: Any, batch: Any) -> Any:
        sizes.append(len(batch.input_ids))
        if model is adapted and sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(model, batch)

    monkeypatch.setattr(divergence, "target_states", small)
    most = 1
    np.testing.assert_allclose(item_divergences(base, adapted, data)[0], expected[0], rtol=1e-4)
    assert max(sizes) == 3 and min(sizes) == 1
    most = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        item_divergences(base, adapted, data)


def test_weights_are_compared_block_by_block_after_merging() -> None:
    base = make_tiny_model("gpt2")
    adapted = copy.deepcopy(base)
    component = Lora(rank=2).attach(adapted, Streams(0), "main")
    with torch.no_grad():
        for parameter in component.parameters().values():
            parameter.fill_(0.1)
    component.merge()
    found = weight_changes(base, adapted)
    weight, before = adapted.transformer.h[1].attn.c_attn.weight, base.transformer.h[1].attn.c_attn.weight
    block = [parameter.detach() for name, parameter in base.named_parameters() if name.startswith("transformer.h.1.")]
    moved = sum(float((after.detach() - before).pow(2).sum())
                for after, before in zip(adapted.transformer.h[1].parameters(), block, strict=True))
    assert float((weight - before).detach().abs().max()) > 0
    assert found["transformer.h.1"] == pytest.approx((moved / sum(float(p.pow(2).sum()) for p in block)) ** 0.5)
    assert found["outside blocks"] == 0.0 and 0 < found["whole"] < found["transformer.h.1"]
