from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetrial.errors import DataError
from finetrial.streams import Streams
from finetrial.train.batch import DocumentBatches, make_batch, pack, target_counts
from finetrial.train.config import Budget, Training


@given(st.lists(st.integers(1, 20), min_size=1, max_size=200), st.integers(1, 8), st.randoms())
@settings(max_examples=60, deadline=None)
def test_pack_holds_each_document_once_and_fits(lengths: list[int], open_rows: int, random: Any) -> None:
    order = list(range(len(lengths)))
    random.shuffle(order)
    rows = pack(order, np.array(lengths), 20, open_rows=open_rows)
    assert sorted(document for row in rows for document in row) == sorted(order)
    assert all(sum(lengths[document] for document in row) <= 20 for row in rows)
    assert rows == pack(order, np.array(lengths), 20, open_rows=open_rows)


def test_pack_fills_rows() -> None:
    lengths = np.random.default_rng(0).integers(5, 120, 2000)
    rows = pack(np.arange(2000), lengths, 256)
    assert lengths.sum() / (len(rows) * 256) > 0.97


def test_packed_document_equals_document_alone(tiny_model: Any, tiny_documents: Any, architecture: str) -> None:
    model, dataset = tiny_model(architecture), tiny_documents(6)
    batch = make_batch(dataset, [(0, 1, 2), (3, 4), (5,)])
    with torch.no_grad():
        packed = model(input_ids=batch.input_ids, position_ids=batch.position_ids,
                       attention_mask=batch.attention()).logits
        for row, documents in enumerate([(0, 1, 2), (3, 4), (5,)]):
            at = 0
            for document in documents:
                ids = dataset.ids[dataset.offsets[document]:dataset.offsets[document + 1]]
                alone = model(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0]
                torch.testing.assert_close(packed[row, at:at + len(ids)], alone, atol=1e-5, rtol=1e-5)
                at += len(ids)


def test_targets_are_the_masked_tokens_and_never_padding(tiny_documents: Any) -> None:
    dataset = tiny_documents(5)
    batch = make_batch(dataset, [(0, 1), (2,), (3, 4)], pad_id=96)
    assert batch.num_targets == target_counts(dataset).sum() == dataset.loss_mask.sum()
    assert batch.num_tokens == len(dataset.ids)
    flat = batch.input_ids.flatten()
    assert torch.equal(flat[batch.target_places + 1], batch.target_ids)
    assert np.array_equal(batch.target_ids.numpy(), dataset.ids[dataset.loss_mask])


def test_first_token_is_no_target(tiny_documents: Any) -> None:
    dataset = tiny_documents(3)
    dataset.loss_mask[:] = True
    assert target_counts(dataset).tolist() == (np.diff(dataset.offsets) - 1).tolist()
    assert make_batch(dataset, [(0, 1, 2)]).num_targets == len(dataset.ids) - 3


def test_one_document_a_row_needs_no_mask(tiny_documents: Any) -> None:
    batch = make_batch(tiny_documents(3), [(0,), (1,), (2,)])
    assert batch.attention() is None and batch.position_ids is None


@pytest.mark.parametrize("packing", [True, False])
def test_every_epoch_holds_every_document_once(tiny_documents: Any, packing: bool) -> None:
    dataset = tiny_documents(30)
    config = Training(sequence_length=40, batch_sequences=4, packing=packing)
    batches = DocumentBatches(dataset, config, Streams(0))
    steps = batches.num_steps(Budget(amount=3, unit="epochs"))
    tokens = sum(part.num_tokens for step in range(steps) for part in batches.step(step, None))
    assert 3 * len(dataset.ids) <= tokens < 3 * len(dataset.ids) + 4 * 40
    assert batches.epoch(steps) >= 3 > batches.epoch(steps - 1)


def test_token_budget_is_reached_at_the_last_step(tiny_documents: Any) -> None:
    dataset = tiny_documents(30)
    batches = DocumentBatches(dataset, Training(sequence_length=40, batch_sequences=3), Streams(1))
    steps = batches.num_steps(Budget(amount=1000, unit="tokens"))
    tokens = [sum(part.num_tokens for part in batches.step(step, None)) for step in range(steps)]
    assert sum(tokens) >= 1000 > sum(tokens[:-1])


def test_steps_are_addressable_and_follow_the_seed(tiny_documents: Any) -> None:
    dataset, config = tiny_documents(30), Training(sequence_length=40, batch_sequences=4)
    first = DocumentBatches(dataset, config, Streams(0))
    forward = [first.step(step, None)[0].input_ids for step in range(12)]
    second = DocumentBatches(dataset, config, Streams(0))
    backward = [second.step(step, None)[0].input_ids for step in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    for other in (Streams(1), Streams(0, "aa/")):
        batch = DocumentBatches(dataset, config, other).step(0, None)[0].input_ids
        assert batch.shape != forward[0].shape or not torch.equal(batch, forward[0])


def test_micro_batches_hold_the_rows_of_the_batch(tiny_documents: Any) -> None:
    batches = DocumentBatches(tiny_documents(30), Training(sequence_length=40, batch_sequences=5), Streams(0))
    whole, parts = batches.step(0, None), batches.step(0, 2)
    assert [len(part.input_ids) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.target_ids for part in parts]), whole[0].target_ids)


def test_refusals(tiny_documents: Any) -> None:
    dataset = tiny_documents(5, shortest=10, longest=30)
    with pytest.raises(DataError, match=r"of 5 documents are longer .* holds 16 tokens.* has \d+"):
        DocumentBatches(dataset, Training(sequence_length=16), Streams(0))
    dataset.loss_mask[:] = False
    with pytest.raises(DataError, match="none of the 5 training documents has a token to learn"):
        DocumentBatches(dataset, Training(sequence_length=32), Streams(0))
    with pytest.raises(DataError, match="no document"):
        DocumentBatches(dataset.select([]), Training(sequence_length=32), Streams(0))
