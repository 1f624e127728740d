from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetrial.errors import DataError
from finetrial.streams import Streams
from finetrial.train.config import Budget, Training
from finetrial.train.flat import FlatDataset

CONFIG = Training(sequence_length=16, batch_sequences=4)


def _ids(num: int = 500) -> Any:
    ids = np.random.default_rng(0).integers(1, 97, num).astype(np.uint16)
    ids[::11] = 0
    return ids


def test_every_token_is_a_target_once_an_epoch(tmp_path: Path) -> None:
    ids = _ids()
    np.save(tmp_path / "ids.npy", ids)
    batches = FlatDataset.open(tmp_path / "ids.npy", end_of_text=0).batches(CONFIG, Streams(0))
    rows = (len(ids) - 1) // 16
    steps = batches.num_steps(Budget(amount=1, unit="epochs"))
    assert steps == -(-rows // 4)
    seen = torch.cat([part.target_ids for step in range(steps) for part in batches.step(step, 3)])[:rows * 16]
    assert sorted(seen.tolist()) == sorted(ids[1:rows * 16 + 1].tolist())
    assert batches.num_steps(Budget(amount=130, unit="tokens")) == 3
    assert batches.epoch(steps) >= 1


def test_targets_follow_inputs_and_order_follows_seed() -> None:
    data = FlatDataset(_ids(), end_of_text=0)
    [batch] = data.batches(CONFIG, Streams(0)).step(5, None)
    targets = batch.target_ids.view(4, 16)
    assert torch.equal(targets[:, :-1], batch.input_ids[:, 1:])
    assert batch.attention() is None
    [again] = data.batches(CONFIG, Streams(0)).step(5, None)
    [other] = data.batches(CONFIG, Streams(1)).step(5, None)
    assert torch.equal(batch.input_ids, again.input_ids) and not torch.equal(batch.input_ids, other.input_ids)


def test_separate_documents_do_not_see_each_other(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    [batch] = FlatDataset(_ids(), end_of_text=0, separate_documents=True).batches(CONFIG, Streams(0)).step(0, None)
    with torch.no_grad():
        packed = model(input_ids=batch.input_ids, position_ids=batch.position_ids,
                       attention_mask=batch.attention()).logits
        ids = batch.input_ids[0]
        ends = (ids == 0).nonzero().flatten().tolist()
        starts = [0, *(end + 1 for end in ends)]
        for first, last in zip(starts, [*starts[1:], len(ids)], strict=True):
            if last > first:
                alone = model(input_ids=ids[None, first:last]).logits[0]
                torch.testing.assert_close(packed[0, first:last], alone, atol=1e-5, rtol=1e-5)


def test_refusals(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.zeros((2, 3), np.int64))
    with pytest.raises(DataError, match="expected a flat array of uint16"):
        FlatDataset.open(tmp_path / "ids.npy", end_of_text=0)
    with pytest.raises(DataError, match="10 tokens do not fill one row of 16"):
        FlatDataset(_ids(10), end_of_text=0).batches(CONFIG, Streams(0))
