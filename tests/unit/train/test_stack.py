"""Cells trained together are the cells that they are alone, up to rounding."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial.methods.layer import Layer
from finetrial.methods.lora import AdapterComponent, Lora
from finetrial.methods.peft import Peft
from finetrial.models import params
from finetrial.models.stacked import StackedAdapters, can_stack, shell
from finetrial.streams import Streams
from finetrial.train.batch import make_batch
from finetrial.train.checkpoint import Checkpoints
from finetrial.train.config import Budget, Training
from finetrial.train.loop import train
from finetrial.train.loss import item_losses
from finetrial.train.meter import TrainResult
from finetrial.train.outcome import Diverged, OutOfTime
from finetrial.train.stack import Cell, joined, train_stacked

CONFIG = Training.model_validate({"budget": "5 steps", "sequence_length": 40, "batch_sequences": 4, "clip_norm": 0.5})
FAMILIES = ("gpt2", "llama", "t5", "t5-gated")
POINTS = ((0, 1e-2, 2), (0, 3e-3, 4), (2, 3e-2, 8))  # seed, learning rate, rank

pytestmark = pytest.mark.usefixtures("one_thread")


class Trial:
    """Cells on shells of one base, with what they report."""

    def __init__(self, model: Any, dataset: Any, *, points: Sequence[tuple[int, float, int]] = POINTS,
                 dropout: float = 0.0, config: Training = CONFIG) -> None:
        self.carrier, self.dataset, self.losses = model, dataset, [[] for _ in points]  # type: ignore[var-annotated]
        self.cells: list[Cell] = []
        for (seed, rate, rank), losses in zip(points, self.losses, strict=True):
            own, streams = shell(model), Streams(seed)
            component = Lora(rank=rank, targets="all-linear", dropout=dropout).attach(own, streams, "main")
            self.cells.append(Cell(model=own, components=[component], dataset=dataset, config=config, learning_rate=rate,
                                   streams=streams, on_metrics=lambda m, to=losses: to.append(m["loss"])))

    @property
    def adapters(self) -> list[Any]:
        return [component.adapter for cell in self.cells for component in cell.components]  # type: ignore[attr-defined]

    def together(self, **options: Any) -> list[Any]:
        return train_stacked(self.carrier, StackedAdapters(self.carrier, self.adapters), self.cells, **options)

    def alone(self, **options: Any) -> list[Any]:
        return [train(cell.model, cell.components, cell.dataset, cell.config, cell.learning_rate, cell.streams,
                      on_metrics=cell.on_metrics, validate=cell.validate, **options) for cell in self.cells]

    def weights(self) -> list[dict[str, torch.Tensor]]:
        return [{name: p.detach() for name, p in cell.components[0].parameters().items()} for cell in self.cells]


@pytest.fixture
def trial(tiny_model: Any, tiny_documents: Any, tiny_pairs: Any) -> Any:
    def make(family: str = "gpt2", **options: Any) -> Trial:
        return Trial(tiny_model(family), tiny_pairs(30) if family.startswith("t5") else tiny_documents(30), **options)
    return make


def assert_equal(together: Trial, alone: Trial, rel: float = 1e-4) -> None:
    """Loss by loss; weights to the size of a step, which Adam makes of any gradient however small."""
    for losses, expected in zip(together.losses, alone.losses, strict=True):
        assert losses == pytest.approx(expected, rel=rel)
    for found, expected in zip(together.weights(), alone.weights(), strict=True):
        for name, weight in found.items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(("family", "change"), [
    *((family, {}) for family in FAMILIES), ("llama", {"packing": False, "micro_batch": 2}), ("t5", {"micro_batch": 2}),
    ("gpt2", {"dropout": 0.2, "micro_batch": 2}), ("t5-gated", {"dropout": 0.2})])
def test_every_step_is_that_of_the_cell_alone(trial: Any, family: str, change: dict[str, Any]) -> None:
    config = CONFIG.model_copy(update={"packing": change.get("packing", True)})
    options = {"micro_batch": change.get("micro_batch")}
    together, alone = (trial(family, config=config, dropout=change.get("dropout", 0.0)) for _ in range(2))
    frozen = params.frozen_digest(together.carrier)
    results, expected = together.together(**options), alone.alone(**options)
    assert_equal(together, alone)
    for result, other in zip(results, expected, strict=True):
        assert (result.steps, result.tokens, result.target_tokens) == (other.steps, other.tokens, other.target_tokens)
    assert len({tuple(losses) for losses in together.losses}) == len(POINTS)
    assert params.frozen_digest(together.carrier) == frozen and not together.cells[0].model.training


def test_in_bf16_too(trial: Any) -> None:
    config = CONFIG.model_copy(update={"precision": "bf16"})
    together, alone = trial(config=config), trial(config=config)
    together.together()
    alone.alone()
    for losses, expected in zip(together.losses, alone.losses, strict=True):
        assert losses == pytest.approx(expected, rel=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in together.carrier.parameters())


def test_a_stack_of_one_and_two_stacks_are_bit_equal(trial: Any) -> None:
    first, second = trial(), trial()
    first.together()
    second.together()
    assert first.losses == second.losses
    one, alone = trial(points=POINTS[:1]), trial(points=POINTS[:1])
    one.together()
    alone.alone()
    assert_equal(one, alone, rel=1e-6)


def test_a_cell_that_diverges_leaves_and_the_others_go_on(trial: Any) -> None:
    points = ((0, 1e-2, 2), (0, 1e30, 2), (1, 1e-2, 2))
    together, alone = trial(points=points), trial(points=points[:1])
    first, second, third = together.together()
    assert isinstance(second, Diverged) and second.step == 2
    assert isinstance(first, TrainResult) and first.steps == third.steps == 5
    alone.alone()
    assert together.losses[0] == pytest.approx(alone.losses[0], rel=1e-4)


def test_each_cell_validates_stops_and_checkpoints_by_itself(trial: Any, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"evaluations": 5, "early_stopping": 1})

    def prepared(folder: Path) -> Trial:
        made: Trial = trial(points=POINTS[:2], config=config)
        values = iter([3.0, 2.0, 2.5])
        made.cells[0] = replace(made.cells[0], validate=lambda step: next(values))
        made.cells[1] = replace(made.cells[1], validate=lambda step: float(item_losses(
            made.cells[1].model, made.dataset)[0].sum()), checkpoints=Checkpoints(folder, every_seconds=0))
        return made

    undisturbed = prepared(tmp_path / "undisturbed")
    first, second = undisturbed.together()
    assert first.steps == 3 and second.steps == 5
    assert second.curve[-1].value == pytest.approx(item_losses(undisturbed.cells[1].model, undisturbed.dataset)[0].sum())
    again = prepared(tmp_path / "undisturbed")  # the second cell is done already: the first goes on without it
    first, second = again.together()
    assert first.steps == 3 and second.steps == 5 and again.losses[1] == []


def test_a_deadline_ends_every_cell(trial: Any) -> None:
    assert all(isinstance(ended, OutOfTime) for ended in trial().together(deadline=0.0))


def test_batches_of_one_document_a_row_join_packed_ones(tiny_documents: Any) -> None:
    dataset = tiny_documents(6)
    packed, single = make_batch(dataset, [(0, 1), (2, 3)]), make_batch(dataset, [(4,), (5,)])
    batch, places = joined({3: packed, 7: single})
    assert places.cells == (3, 7) and places.widths == (packed.input_ids.shape[1], single.input_ids.shape[1])
    assert batch.input_ids.shape == (4, max(places.widths)) and batch.owner is not None
    assert torch.equal(batch.input_ids.flatten()[batch.target_places[packed.num_targets:]],
                       single.input_ids.flatten()[single.target_places])
    assert batch.num_tokens == packed.num_tokens + single.num_tokens


def test_what_can_be_stacked(tiny_model: Any) -> None:
    def adapter(method: Any) -> Any:
        component = method.attach(tiny_model("gpt2"), Streams(0), "main")
        assert isinstance(component, AdapterComponent)
        return component.adapter

    plain = adapter(Lora(rank=2))
    assert can_stack([plain, adapter(Lora(rank=4, alpha=3, dropout=0.1))])
    assert not can_stack([plain, adapter(Lora(rank=2, targets="all-linear"))])
    assert not can_stack([plain, adapter(Peft(type="lora", options={"use_dora": True}))])
    assert not can_stack([plain, adapter(Peft(type="ia3"))])


def test_shells_share_weights_and_nothing_else(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    other = shell(model)
    Layer().attach(other, Streams(0), "main")
    assert len(model.transformer.h) == 2 and model.config.num_hidden_layers == 2
    assert other.transformer.h[0].attn.c_attn.weight is model.transformer.h[0].attn.c_attn.weight
    assert other.lm_head.weight is other.transformer.wte.weight


def test_the_time_of_a_step_is_shared_out(trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one cell waits for all: here the clock goes while the first reads its losses."""
    clock = [0.0]

    def wait(metrics: Any) -> None:
        clock[0] += 10.0

    made = trial()
    made.cells[0] = replace(made.cells[0], on_metrics=wait)
    made.cells[2] = replace(made.cells[2], config=CONFIG.model_copy(update={"budget": Budget(amount=3, unit="steps")}))
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    ended = made.together()
    assert [result.steps for result in ended] == [5, 5, 3]
    assert [result.seconds for result in ended] == pytest.approx([20.0, 20.0, 10.0])


def test_scales_are_picked_where_the_cells_change(trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, picked = trial(), []
    tensor = torch.tensor
    monkeypatch.setattr("finetrial.models.stacked.torch.tensor", lambda *args, **named: picked.append(args) or tensor(*args, **named))
    made.cells[2] = replace(made.cells[2], config=CONFIG.model_copy(update={"budget": Budget(amount=3, unit="steps")}))
    made.together()
    layers = len(made.adapters[0].base_layers())
    scales = [args[0] for args in picked if isinstance(args[0], list) and isinstance(args[0][0], float)]
    assert [len(each) for each in scales] == [3] * layers + [2] * layers
