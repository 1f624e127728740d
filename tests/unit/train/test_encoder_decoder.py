"""Training and scoring of encoder-decoders, against transformers' own code."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from finetrial.errors import DataError, ModelError
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora
from finetrial.models import blocks, params
from finetrial.streams import Streams
from finetrial.train.batch import DocumentBatches, make_batch, pair_batch, target_counts
from finetrial.train.config import Budget, Training
from finetrial.train.loop import train
from finetrial.train.loss import check_base, item_losses, summed_loss, target_losses

CONFIG = Training.model_validate({"budget": "8 steps", "sequence_length": 40, "batch_sequences": 4})
METHODS = {"full": Full(), "lora": Lora(rank=2)}

pytestmark = pytest.mark.usefixtures("one_thread")


def _pair(dataset: Any, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = dataset.source_ids[dataset.source_offsets[row]:dataset.source_offsets[row + 1]]
    target = dataset.ids[dataset.offsets[row]:dataset.offsets[row + 1]]
    return torch.tensor(source.astype(np.int64))[None], torch.tensor(target.astype(np.int64))[None]


def _plain_losses(model: Any, dataset: Any) -> list[float]:
    """One pair at a time, transformers shifting the labels itself."""
    sums = []
    for row in range(len(dataset)):
        source, target = _pair(dataset, row)
        with torch.no_grad():
            sums.append(float(model(input_ids=source, labels=target).loss) * target.numel())
    return sums


def test_a_batch_is_sources_shifted_targets_and_places(tiny_pairs: Any) -> None:
    dataset = tiny_pairs(5)
    batch = make_batch(dataset, [(row,) for row in range(5)], pad_id=96, start_id=95)
    assert batch.source_ids is not None and batch.source_mask is not None and batch.attention() is None
    assert batch.num_targets == len(dataset.ids) == target_counts(dataset).sum()
    assert batch.num_tokens == len(dataset.ids) + len(dataset.source_ids)
    for row in range(5):
        source, target = _pair(dataset, row)
        assert batch.source_ids[row][batch.source_mask[row]].tolist() == source[0].tolist()
        assert batch.input_ids[row, :target.numel()].tolist() == [95, *target[0, :-1].tolist()]
    assert set(batch.source_ids[~batch.source_mask].tolist()) == {96}
    assert batch.target_ids.tolist() == dataset.ids.tolist()


def test_check_base(tiny_model: Any, tiny_pairs: Any, encoder_decoder: str) -> None:
    model = tiny_model(encoder_decoder)
    batch = make_batch(tiny_pairs(5), [(row,) for row in range(5)], start_id=blocks.start_id(model))
    check_base(model, batch)
    assert (blocks.head_scale(model) == 1) == (encoder_decoder == "t5-gated")
    model.config.scale_decoder_outputs = not model.config.scale_decoder_outputs
    wrong = target_losses(model, batch)
    model.config.scale_decoder_outputs = not model.config.scale_decoder_outputs
    assert not torch.allclose(wrong, target_losses(model, batch))
    model.lm_head.register_forward_hook(lambda module, inputs, output: 5 * torch.tanh(output / 5))
    with pytest.raises(ModelError, match="the model's own loss is"):
        check_base(model, batch)


def test_item_losses_equal_a_plain_loop_whatever_the_batch(tiny_model: Any, tiny_pairs: Any, encoder_decoder: str,
                                                           ) -> None:
    model, dataset = tiny_model(encoder_decoder), tiny_pairs(25)
    sums, counts = item_losses(model, dataset)
    np.testing.assert_allclose(sums, _plain_losses(model, dataset), rtol=1e-5)
    assert counts.tolist() == np.diff(dataset.offsets).tolist()
    alone, _ = item_losses(model, dataset, batch_tokens=1)
    np.testing.assert_allclose(sums, alone, rtol=1e-5)


def test_gradients_equal_autograd(tiny_model: Any, tiny_pairs: Any, encoder_decoder: str) -> None:
    ours, plain = tiny_model(encoder_decoder), tiny_model(encoder_decoder)
    dataset = tiny_pairs(4)
    summed_loss(ours, make_batch(dataset, [(row,) for row in range(4)])).backward()
    for row in range(4):
        source, target = _pair(dataset, row)
        (plain(input_ids=source, labels=target).loss * target.numel()).backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_training_equals_a_plain_loop(tiny_model: Any, tiny_pairs: Any, encoder_decoder: str, method: str) -> None:
    ours, plain, dataset = tiny_model(encoder_decoder), tiny_model(encoder_decoder), tiny_pairs(30)
    lines: list[Any] = []
    train(ours, [METHODS[method].attach(ours, Streams(0), "main")], dataset, CONFIG, 1e-2, Streams(0),
          on_metrics=lines.append)
    parameters = list(params.own(plain, [METHODS[method].attach(plain, Streams(0), "main")]).values())
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0)
    batches, losses = DocumentBatches(dataset, CONFIG, Streams(0)), []
    for step in range(8):
        [batch] = batches.step(step, None)
        logits = plain(input_ids=batch.source_ids, attention_mask=batch.source_mask.long(),
                       decoder_input_ids=batch.input_ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.target_places], batch.target_ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 if step == 0 else 1e-2 * (1 + math.cos(math.pi * (step - 1) / 7)) / 2
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_and_bf16_are_near(tiny_model: Any, tiny_pairs: Any, encoder_decoder: str, method: str) -> None:
    def losses(micro_batch: int | None = None, **options: Any) -> list[float]:
        model, lines = tiny_model(encoder_decoder), []
        train(model, [METHODS[method].attach(model, Streams(0), "main")], tiny_pairs(30),
              CONFIG.model_copy(update=options), 1e-3, Streams(0), micro_batch=micro_batch, on_metrics=lines.append)
        return [line["loss"] for line in lines]

    whole = losses()
    assert losses(1) == pytest.approx(whole, rel=1e-4)
    near = losses(precision="bf16")
    assert near == pytest.approx(whole, rel=0.05) and near != whole


def test_before_training_full_and_lora_have_the_same_loss(tiny_model: Any, tiny_pairs: Any, encoder_decoder: str,
                                                          ) -> None:
    """Bit for bit, also in bf16: nothing depends on whether the position bias is trained."""
    found = set()
    for method in METHODS.values():
        model = tiny_model(encoder_decoder)
        params.own(model, [method.attach(model, Streams(0), "main")])
        batch = make_batch(tiny_pairs(6), [(row,) for row in range(6)])
        with torch.autocast("cpu", torch.bfloat16):
            found.add(float(summed_loss(model.train(), batch).detach()))
    assert len(found) == 1


def test_dropout_acts_in_full_fine_tuning(tiny_model: Any, tiny_pairs: Any) -> None:
    finals = []
    for rate in (0.0, 0.3):
        model = tiny_model("t5")
        result = train(model, [Full().attach(model, Streams(0), "main")], tiny_pairs(10),
                       CONFIG.model_copy(update={"dropout": rate}), 1e-3, Streams(0))
        finals.append(result.final_loss)
    assert finals[0] != finals[1]


def test_epochs_and_token_budgets_count_both_sides(tiny_pairs: Any) -> None:
    dataset = tiny_pairs(30)
    total = len(dataset.ids) + len(dataset.source_ids)
    batches = DocumentBatches(dataset, CONFIG.model_copy(update={"batch_sequences": 5}), Streams(0))
    steps = batches.num_steps(Budget(amount=1, unit="epochs"))
    parts = [part for step in range(steps) for part in batches.step(step, 2)]
    assert steps == 6 and sum(part.num_tokens for part in parts) == total
    assert sorted(torch.cat([part.target_ids for part in parts]).tolist()) == sorted(dataset.ids.tolist())
    assert batches.num_steps(Budget(amount=total - 1, unit="tokens")) == 6


def test_either_side_may_be_too_long() -> None:
    from finetrial.tasks.encoded import TokenDataset

    def dataset(num_source: int, num_target: int) -> TokenDataset:
        return TokenDataset(np.zeros(num_target, np.int32), np.ones(num_target, bool), np.array([0, num_target]),
                            np.zeros(1, np.int64), ["a"], ["a"], np.zeros(num_source, np.int32),
                            np.array([0, num_source]))

    DocumentBatches(dataset(16, 16), Training(sequence_length=16), Streams(0))
    for sizes in ((17, 2), (2, 17)):
        with pytest.raises(DataError, match="holds 16 tokens; document 0 has 17"):
            DocumentBatches(dataset(*sizes), Training(sequence_length=16), Streams(0))


def test_pair_batch_of_plain_arrays(tiny_model: Any) -> None:
    batch = pair_batch([np.array([5, 6, 7], np.int32), np.array([8], np.int32)],
                       [np.array([9, 1], np.int32), np.array([3, 4, 1], np.int32)], pad_id=0, start_id=0)
    check_base(tiny_model("t5"), batch)


def test_a_model_without_a_start_token_is_refused(tiny_model: Any) -> None:
    model = tiny_model("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="has no decoder_start_token_id"):
        blocks.start_id(model)
