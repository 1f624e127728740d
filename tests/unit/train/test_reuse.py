"""Training and predicting with states of frozen blocks that were computed before: not a bit differs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetrial.methods.base import Method
from finetrial.methods.full import Full
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.methods.unfreeze import Unfreeze
from finetrial.models import params
from finetrial.streams import Streams
from finetrial.train.config import Training
from finetrial.train.loop import train
from finetrial.train.loss import item_losses
from finetrial.train.reuse import Reuse, StateFiles, reuse_below

CONFIG = Training.model_validate({"budget": "5 steps", "sequence_length": 40, "batch_sequences": 4})
FAMILIES = ("gpt2", "llama", "t5", "t5-gated")
LAST_QUERY = {"gpt2": "1.attn.c_attn", "llama": "1.self_attn.q_proj", "t5": "decoder.block.1.layer.0.SelfAttention.q",
              "t5-gated": "decoder.block.2.layer.0.SelfAttention.q"}
METHODS: Mapping[str, Any] = {
    "layer": lambda family: Layer(), "unfreeze": lambda family: Unfreeze(last=1, final_norm=True),
    "lora": lambda family: Lora(rank=2, targets=(LAST_QUERY[family],), dropout=0.2),
    "encoder": lambda family: Layer(stack="encoder")}
CASES = [(family, method) for family in FAMILIES for method in METHODS if method != "encoder" or family.startswith("t5")]

pytestmark = pytest.mark.usefixtures("one_thread")


class Cell:
    """A model with a method attached, trained once; what came out."""

    def __init__(self, model: Any, method: Method, dataset: Any, folder: Path | None, *, rate: float = 1e-2,
                 config: Training = CONFIG, **options: Any) -> None:
        self.component = method.attach(model, Streams(0), "main")
        owned = params.own(model, [self.component])
        self.model, self.losses = model, []
        self.reuse = reuse_below(model, owned.values(), folder)
        self.result = train(model, [self.component], dataset, config, rate, Streams(0), reuse=self.reuse,
                            on_metrics=lambda metrics: self.losses.append(metrics["loss"]),
                            validate=lambda step: float(item_losses(model, dataset, reuse=self.reuse)[0].sum()), **options)

    @property
    def values(self) -> tuple[Any, ...]:
        return self.losses, self.result.curve, self.component.trainable_digest()

    @property
    def counts(self) -> tuple[int, int]:
        assert self.reuse is not None
        return self.reuse.counts["batches_computed"], self.reuse.counts["batches_read"]


@pytest.fixture
def documents(tiny_documents: Any, tiny_pairs: Any) -> Any:
    return lambda family: tiny_pairs(24) if family.startswith("t5") else tiny_documents(24)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_cells_with_states_from_files_are_bit_equal(tiny_model: Any, documents: Any, tmp_path: Path, family: str,
                                                    method: str) -> None:
    """Two learning rates, one after the other: the second computes no frozen block."""
    made, dataset = METHODS[method](family), documents(family)
    for rate in (1e-2, 3e-3):
        alone = Cell(tiny_model(family), made, dataset, None, rate=rate)
        shared = Cell(tiny_model(family), made, dataset, tmp_path, rate=rate)
        assert shared.values == alone.values
    computed, read = shared.counts
    assert computed == 0 and read == 5 + len(alone.result.curve)


@pytest.mark.parametrize("change", [{"packing": False}, {"precision": "bf16"}, {"dropout": 0.2}])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_whatever_the_recipe(tiny_model: Any, documents: Any, tmp_path: Path, family: str, change: Any) -> None:
    config, dataset = Training.model_validate({**CONFIG.model_dump(mode="json"), **change}), documents(family)
    cells = [Cell(tiny_model(family), Layer(), dataset, folder, config=config, micro_batch=2)
             for folder in (None, tmp_path, tmp_path)]
    assert cells[0].values == cells[1].values == cells[2].values
    assert cells[2].counts[0] == 0


def test_arms_with_one_prefix_share_states_and_others_do_not(tiny_model: Any, documents: Any, tmp_path: Path) -> None:
    dataset = documents("gpt2")
    first = Cell(tiny_model("gpt2"), Layer(), dataset, tmp_path)
    assert first.counts == (5 + 1, len(first.result.curve) - 1)
    assert Cell(tiny_model("gpt2"), Layer(init="random", output_scale=0.1), dataset, tmp_path).counts[0] == 0
    assert Cell(tiny_model("gpt2"), Unfreeze(last=1), dataset, tmp_path).counts[0] > 0
    assert Cell(tiny_model("gpt2", seed=1), Layer(), dataset, tmp_path).counts[0] > 0


@pytest.mark.parametrize("method", [Full(), Lora(), Layer(position="start"), Unfreeze(first=1),
                                    Unfreeze(last=1, embeddings=True)])
def test_without_frozen_first_blocks_there_is_nothing_to_reuse(tiny_model: Any, tmp_path: Path, method: Method) -> None:
    model = tiny_model("gpt2")
    owned = params.own(model, [method.attach(model, Streams(0), "main")])
    assert reuse_below(model, owned.values(), tmp_path) is None
    assert reuse_below(model, [], None) is None


def test_frozen_adapters_inserted_blocks_and_dropout_end_a_prefix(tiny_model: Any, tmp_path: Path) -> None:
    def depth(model: Any) -> int | None:
        found = reuse_below(model, [], tmp_path)
        return None if found is None else found.counts["blocks"]

    plain, adapted, enlarged, dropping = (tiny_model("gpt2") for _ in range(4))
    Lora(targets=("1.attn.c_attn",)).attach(adapted, Streams(0), "main")
    Layer(position=1).attach(enlarged, Streams(0), "main")
    dropping.transformer.h[1].mlp.dropout.p = 0.1
    assert [depth(model) for model in (plain, adapted, enlarged, dropping)] == [2, 1, 1, 1]
    dropping.transformer.drop.p = 0.1
    assert depth(dropping) is None


def test_a_damaged_file_is_computed_again(tiny_model: Any, documents: Any, tmp_path: Path,
                                          caplog: pytest.LogCaptureFixture) -> None:
    dataset = documents("gpt2")
    alone = Cell(tiny_model("gpt2"), Layer(), dataset, tmp_path)
    damaged = min(tmp_path.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    again = Cell(tiny_model("gpt2"), Layer(), dataset, tmp_path)
    assert again.values == alone.values and again.counts[0] == 1
    assert "does not match its digest" in caplog.text


def test_files_stay_within_their_bound_and_the_last_read_are_kept(tmp_path: Path) -> None:
    tensor = torch.zeros(1000)  # 4,000 bytes and a little more
    files = StateFiles(tmp_path / "states", most_bytes=16 * 5000)
    for number in range(40):
        files.put(f"state-{number:02d}", [tensor + number])
        assert files.get("state-00") is not None
    sizes = [path.stat().st_size for path in files.folder.iterdir()]
    assert len(sizes) > 8 and sum(sizes) <= 16 * 5000
    assert files.get("state-01") is None
    found = files.get("state-39")
    assert found is not None and torch.equal(found[0], tensor + 39)
    files.put("large", [torch.zeros(100_000)])
    assert files.get("large") is None


def test_a_folder_that_vanishes_costs_only_time(tiny_model: Any, documents: Any, tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "states")
    files.folder.rmdir()
    files.put("key", [torch.zeros(3)])
    assert files.get("key") is None


def test_predictions_of_other_seeds_read_what_the_first_computed(tiny_model: Any, documents: Any, tmp_path: Path) -> None:
    dataset = documents("llama")
    for seed, expected in ((0, 0), (1, 1)):
        model = tiny_model("llama")
        component = Layer(init="random", output_scale=0.5).attach(model, Streams(seed), "main")
        reuse = reuse_below(model, component.parameters().values(), tmp_path)
        assert isinstance(reuse, Reuse)
        np.testing.assert_array_equal(item_losses(model, dataset, reuse=reuse)[0], item_losses(model, dataset)[0])
        assert reuse.counts["batches_read"] == expected
