"""The loss against transformers' own, in value and gradient."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from finetrial.errors import DataError, ModelError
from finetrial.models import blocks
from finetrial.train import loss as loss_file
from finetrial.train.batch import make_batch
from finetrial.train.flat import FlatDataset
from finetrial.train.loss import check_base, item_losses, summed_loss, target_losses


def _plain_losses(model: Any, dataset: Any) -> list[float]:
    """One document at a time through the model, cross entropy over its logits: what anyone would write."""
    sums = []
    for first, last in zip(dataset.offsets, dataset.offsets[1:], strict=False):
        ids = torch.tensor(dataset.ids[first:last].astype(np.int64))[None]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        sums.append(float(losses[torch.tensor(dataset.loss_mask[first + 1:last])].double().sum()))
    return sums


def test_item_losses_equal_a_plain_loop(tiny_model: Any, tiny_documents: Any, architecture: str) -> None:
    model, dataset = tiny_model(architecture), tiny_documents(25)
    sums, counts = item_losses(model, dataset)
    np.testing.assert_allclose(sums, _plain_losses(model, dataset), rtol=1e-5)
    assert counts.tolist() == [int(dataset.loss_mask[a:b].sum()) for a, b in
                               zip(dataset.offsets, dataset.offsets[1:], strict=False)]
    assert sums.dtype == np.float64 and counts.dtype == np.int64


def test_item_losses_do_not_depend_on_the_batch(tiny_model: Any, tiny_documents: Any, architecture: str) -> None:
    model, dataset = tiny_model(architecture), tiny_documents(25)
    together, _ = item_losses(model, dataset)
    alone, _ = item_losses(model, dataset, batch_tokens=1)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    reordered, _ = item_losses(model, dataset.select(np.arange(25)[::-1]), batch_tokens=64)
    np.testing.assert_allclose(reordered[::-1], together, rtol=1e-5)


def test_a_batch_that_memory_does_not_suffice_for_is_halved(tiny_model: Any, tiny_documents: Any,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    model, documents = tiny_model("gpt2"), tiny_documents(12)
    expected, _ = item_losses(model, documents)
    compute, sizes = loss_file.target_losses, []

    def small(model: Any, batch: Any, reuse: Any = None) -> Any:
        sizes.append(len(batch.input_ids))
        if sizes[-1] > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(model, batch, reuse)

    monkeypatch.setattr(loss_file, "target_losses", small)
    most = 2
    assert item_losses(model, documents)[0] == pytest.approx(expected, rel=1e-5)
    assert max(sizes) > 2
    most = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        item_losses(model, documents)


def test_item_without_target_has_none(tiny_model: Any, tiny_documents: Any) -> None:
    dataset = tiny_documents(3)
    dataset.loss_mask[dataset.offsets[1]:dataset.offsets[2]] = False
    sums, counts = item_losses(tiny_model("gpt2"), dataset)
    assert counts[1] == 0 and sums[1] == 0 and sums[0] > 0 and sums[2] > 0


def test_item_losses_in_bf16_are_near(tiny_model: Any, tiny_documents: Any) -> None:
    model, dataset = tiny_model("gpt2"), tiny_documents(10)
    near, _ = item_losses(model, dataset, precision="bf16")
    exact, _ = item_losses(model, dataset)
    np.testing.assert_allclose(near, exact, rtol=2e-2)
    assert not np.array_equal(near, exact)


def test_too_long_document_is_refused_with_the_numbers(tiny_model: Any, tiny_documents: Any) -> None:
    with pytest.raises(DataError, match=r"2 of 2 documents .* the model's positions, which holds 64 tokens.* has 70"):
        item_losses(tiny_model("gpt2"), tiny_documents(2, shortest=70, longest=70))


@pytest.mark.parametrize("chunk", [1, 97 * 7, 1 << 20])
def test_gradients_equal_autograd_of_cross_entropy(tiny_model: Any, tiny_documents: Any, architecture: str, chunk: int,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_file, "CHUNK_LOGITS", chunk)
    dataset = tiny_documents(6)
    batch = make_batch(dataset, [(0, 1), (2, 3), (4, 5)])
    ours, plain = tiny_model(architecture), tiny_model(architecture)
    value = summed_loss(ours, batch) * 0.5
    value.backward()
    logits = plain(input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.attention()).logits
    reference = 0.5 * torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.target_places], batch.target_ids,
                                                        reduction="sum")
    reference.backward()
    torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-5)
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_gpu_computes_more_logits_at_a_time() -> None:
    assert loss_file.chunk_size(torch.empty(1000, 8)) == (1 << 22) // 1000
    there = mock.MagicMock(device=torch.device("cuda:1"), **{"__len__.return_value": 1000})
    assert loss_file.chunk_size(there) == (1 << 25) // 1000


def test_frozen_head_gets_no_gradient(tiny_model: Any, tiny_documents: Any) -> None:
    model = tiny_model("llama")
    blocks.head(model).weight.requires_grad_(False)
    summed_loss(model, make_batch(tiny_documents(2), [(0, 1)])).backward()
    assert blocks.head(model).weight.grad is None
    assert all(p.grad is not None for name, p in model.named_parameters() if "layers" in name)


def test_certain_and_hopeless_targets_are_finite() -> None:
    """Logits of a thousand: probabilities that underflow to zero still have their log-likelihood."""
    hidden = torch.eye(2) * 1000.0
    weight = torch.eye(2)
    value = loss_file._SummedCrossEntropy.apply(hidden, weight, torch.tensor([0, 0]))
    assert float(value) == pytest.approx(1000.0)


def test_check_base(tiny_model: Any, tiny_documents: Any, architecture: str) -> None:
    model = tiny_model(architecture)
    documents = make_batch(tiny_documents(4), [(0, 1), (2, 3)])
    check_base(model, documents)
    losses = target_losses(model, documents)
    assert losses.shape == (documents.num_targets,) and losses.dtype == torch.float32
    model.lm_head.register_forward_hook(lambda module, inputs, output: 5 * torch.tanh(output / 5))
    with pytest.raises(ModelError, match="the model's own loss is"):
        check_base(model, documents)


def test_check_base_of_flat_text(tiny_model: Any) -> None:
    from finetrial.streams import Streams
    from finetrial.train.config import Training

    ids = np.random.default_rng(0).integers(0, 97, 200).astype(np.uint16)
    [batch] = FlatDataset(ids, end_of_text=0).batches(Training(sequence_length=16, batch_sequences=3),
                                                      Streams(0)).step(0, None)
    check_base(tiny_model("gpt2"), batch)
