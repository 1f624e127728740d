from typing import Any

import pytest
import torch
from torch import nn

from finetrial.errors import ModelError
from finetrial.methods.full import Full
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.models import blocks, insert, narrow, new_block
from finetrial.models.block_sizes import full_widths, narrow_widths
from finetrial.models.origin import BaseNames, base_linears, base_parameters, base_state
from finetrial.streams import Streams


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        targets = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        return model(input_ids=ids, **targets).logits


def new(model: Any, stack: nn.ModuleList) -> nn.Module:
    """A block that changes what the model computes."""
    return new_block.make(model, stack, 0, full_widths(model.config.to_dict()), "copy", 1.0)


def owners(stack: nn.ModuleList) -> list[str]:
    """`.` for the base's own blocks."""
    marks = [insert.mark_of(block) for block in stack]
    return [mark.owner if mark else "." for mark in marks]


def test_places_count_the_bases_blocks_and_later_ones_lie_above(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    stack = blocks.stacks(model)[0]
    placed = {}
    for owner, gap in (("a", 1), ("end", 2), ("b", 1), ("start", 0), ("c", 1)):
        placed[owner] = new(model, stack)
        insert.insert(model, stack, gap, placed[owner], owner)
    assert owners(stack) == ["start", ".", "a", "b", "c", ".", "end"]
    assert model.config.n_layer == model.config.num_hidden_layers == 7
    assert [block.attn.layer_idx for block in stack] == list(range(7))
    output = logits(model)
    for owner in ("b", "start"):
        insert.remove(model, stack, placed[owner])
    assert owners(stack) == [".", "a", "c", ".", "end"]
    assert not torch.equal(logits(model), output)
    for owner, gap in (("b", 1), ("start", 0)):
        insert.insert(model, stack, gap, placed[owner], owner)
    assert owners(stack) == ["start", ".", "a", "b", "c", ".", "end"] and torch.equal(logits(model), output)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "t5-gated"])
def test_taken_out_the_base_is_what_it_was(tiny_model: Any, family: str) -> None:
    model, base = tiny_model(family), tiny_model(family)
    for stack in blocks.stacks(model):
        block = new(model, stack)
        insert.insert(model, stack, 0, block, "a")
        assert not torch.equal(logits(model), logits(base))
        insert.remove(model, stack, block)
    assert torch.equal(logits(model), logits(base))
    assert list(dict(model.named_parameters())) == list(dict(base.named_parameters()))
    assert [len(stack) for stack in blocks.stacks(model)] == [len(stack) for stack in blocks.stacks(base)]
    for name in ("num_hidden_layers", "num_layers", "num_decoder_layers"):
        assert getattr(model.config, name, None) == getattr(base.config, name, None)


def test_t5s_position_bias_belongs_to_the_stack(tiny_model: Any) -> None:
    model = tiny_model("t5")
    for stack, name in zip(blocks.stacks(model), ("encoder", "decoder"), strict=True):
        bias = stack[0].layer[0].SelfAttention.relative_attention_bias
        block = new(model, stack)
        insert.insert(model, stack, 0, block, "a")
        assert block.layer[0].SelfAttention.relative_attention_bias is bias
        assert [hasattr(b.layer[0].SelfAttention, insert.POSITION_BIAS) for b in stack] == [True, False, False]
        assert [b.layer[0].SelfAttention.has_relative_attention_bias for b in stack] == [True, False, False]
        path = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        assert base_parameters(model)[path] is bias.weight
    assert model.config.decoder_layers == 3


def test_a_gpt2_whose_scale_depends_on_the_place_is_refused(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    model.config.scale_attn_by_inverse_layer_idx = True
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx"):
        Layer().attach(model, Streams(0), "new")
    assert len(blocks.stacks(model)[0]) == 2


def test_names_do_not_depend_on_what_else_is_attached(tiny_model: Any) -> None:
    model, base = tiny_model("t5-gated"), tiny_model("t5-gated")
    Lora(targets="all-linear").attach(model, Streams(0), "low")
    Layer(position="start", stack="both").attach(model, Streams(0), "layer")
    Lora().attach(model, Streams(0), "attn", "2")
    assert base_state(model).keys() == base_state(base).keys() == base.state_dict().keys()
    state = base.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in base_state(model).items())
    assert set(base_linears(model)) == {path for path, _ in base_linears(base).values()}
    names = BaseNames(model)
    assert names("encoder.block.0.layer.0.SelfAttention.q.weight") is None
    assert names("encoder.block.1.layer.0.SelfAttention.q.base_layer.weight") == (
        "encoder.block.0.layer.0.SelfAttention.q.weight")
    assert Full().attach(model, Streams(0), "full").parameters().keys() == dict(base.named_parameters()).keys()


@pytest.mark.parametrize(("family", "inner", "heads"), [
    ("gpt2", 24, 1), ("gpt2", None, 2), ("llama", 24, 2), ("llama", 1, 1), ("t5", 24, None), ("t5-gated", 24, None)])
def test_a_narrow_block_computes_what_it_does_padded(tiny_model: Any, family: str, inner: int | None,
                                                     heads: int | None) -> None:
    model = tiny_model(family)
    config, kind = model.config.to_dict(), model.config.model_type
    widths = narrow_widths(config, inner, heads)
    for stack in blocks.stacks(model):
        block = new_block.make(model, stack, 0, widths, "copy", 1.0)
        insert.insert(model, stack, 1, block, "a")
        size = sum(parameter.numel() for parameter in block.parameters())
        narrowed = logits(model)
        narrow.widen(block, kind, widths, full_widths(config))
        assert sum(parameter.numel() for parameter in block.parameters()) > size
        own = insert.own_blocks(stack)[1]
        assert {n: p.shape for n, p in block.named_parameters()} == {n: p.shape for n, p in own.named_parameters()}
        torch.testing.assert_close(logits(model), narrowed, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("family", "inner", "heads", "message"), [
    ("gpt2", 129, None, "inner = 129: the base's blocks have 128"), ("llama", None, 5, "heads = 5.* have 4"),
    ("llama", None, 3, "heads = 3: 2 query heads share a key head"), ("t5", None, 2, "share one table of position")])
def test_widths_that_cannot_be(tiny_model: Any, family: str, inner: int | None, heads: int | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        narrow_widths(tiny_model(family).config.to_dict(), inner, heads)
