from typing import Any

import pytest

from finetrial.errors import ModelError, SpecError
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.methods.unfreeze import Unfreeze
from finetrial.plan import match
from finetrial.plan.match import nearest_values

GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None, "vocab_size": 50257,
        "n_positions": 1024}
CODET5 = {"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
          "feed_forward_proj": "relu", "vocab_size": 32_100}


def test_the_rank_that_trains_as_much_as_a_new_block() -> None:
    target = Layer(stack="encoder").count_trainable(CODET5)
    assert target == 3_146_752
    found, = nearest_values(Lora(targets="all-linear", dropout=0.1), "rank", target, CODET5)
    assert (found.value, found.trainable, round(found.off, 3)) == (23, 23 * 135_168, -0.012)
    assert found.method == Lora(targets="all-linear", dropout=0.1, rank=23)


@pytest.mark.parametrize("method", [Layer(), Layer(init="random"), Peft(options={"use_dora": True, "r": 1})])
@pytest.mark.parametrize("target", [3_000_000, 4_567_890, 7_000_000])
def test_the_nearest_of_all_values(method: Any, target: int) -> None:
    option = "inner" if isinstance(method, Layer) else "options.r"
    found = nearest_values(method, option, target, GPT2)
    assert len(found) == 1 and abs(found[0].off) <= 0.02
    for value in (found[0].value - 1, found[0].value + 1):
        other = (method.model_copy(update={"inner": value}) if option == "inner"
                 else Peft(options={"use_dora": True, "r": value}))
        assert abs(other.count_trainable(GPT2) / target - 1) >= abs(found[0].off)


def test_both_neighbours_when_no_value_is_near() -> None:
    found = nearest_values(Layer(), "count", 10_000_000, GPT2)
    assert [(m.value, m.trainable) for m in found] == [(1, 7_087_872), (2, 14_175_744)]
    assert [m.value for m in nearest_values(Unfreeze(last=1), "last", 30_000_000, GPT2)] == [4, 5]


def test_one_neighbour_at_the_ends() -> None:
    assert [m.value for m in nearest_values(Lora(), "rank", 10_000, GPT2)] == [1]
    assert [m.value for m in nearest_values(Lora(), "rank", 10**9, GPT2)] == [768]
    assert [m.value for m in nearest_values(Layer(), "inner", 10_000_000, GPT2)] == [3072]
    assert [m.value for m in nearest_values(Unfreeze(last=1), "last", 10**9, GPT2)] == [12]


def test_exactly_on_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "TOLERANCE", 0.0)
    found, = nearest_values(Layer(), "count", 3 * 7_087_872, GPT2)
    assert found.value == 3 and found.off == 0


def test_what_cannot_be_matched() -> None:
    with pytest.raises(SpecError, match="unknown option of lora 'rnk'; did you mean 'rank'"):
        nearest_values(Lora(), "rnk", 1000, GPT2)
    with pytest.raises(SpecError, match="expected a positive number"):
        nearest_values(Lora(), "rank", 0, GPT2)
    with pytest.raises(ModelError, match="alpha of lora does not change the number of trained parameters"):
        nearest_values(Lora(), "alpha", 1000, GPT2)
    with pytest.raises(ModelError, match="not known for this t5 model"):
        nearest_values(Peft(type="lokr"), "options.r", 1000, CODET5)
