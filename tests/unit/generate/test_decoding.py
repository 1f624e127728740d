"""Decoding against one prompt at a time without a cache, and against transformers' own."""

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from finetrial.errors import DataError, ModelError, UserError
from finetrial.generate import Beams, Sampling, by_length, decode, decoding
from finetrial.generate import live as live_file
from finetrial.generate.cache import SlotCache
from finetrial.generate.decoding import groups
from finetrial.generate.live import live_rows
from finetrial.methods.lora import Lora
from finetrial.methods.peft import Peft
from finetrial.models import blocks, params
from finetrial.streams import Streams
from finetrial.train.precision import FrozenMatrices

FAMILIES = ("gpt2", "llama", "mistral", "gemma", "t5", "t5-gated")
NEW = 8

pytestmark = pytest.mark.usefixtures("one_thread")


class Words:
    """What decoding reads of a tokenizer."""

    def __init__(self, end: int | None = 5) -> None:
        self.eos_token_id = end


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def digest(model: Any) -> str:
    """Of every parameter, trained or not."""
    return params.digest(dict(model.named_parameters()))


def make_prompts(num: int = 17, longest: int = 30, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(6, 97, length).tolist() for length in generator.integers(1, longest + 1, num)]


def lively(model: Any) -> tuple[Any, Words]:
    """A random model that does not say one token for ever, and a tokenizer whose end token it says now and then."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5 if parameter.ndim > 1 else 1.0)
    answers = [answer.ids for answer in decode(model, Words(None), make_prompts(), max_new_tokens=NEW)]
    spread = {token: {ids.index(token) for ids in answers if token in ids} for ids in answers for token in ids}
    return model, Words(max(spread, key=lambda token: len(spread[token])))


def plain_greedy(model: Any, words: Words, prompt: Sequence[int]) -> list[int]:
    """One prompt, the whole text read again for every token."""
    new: list[int] = []
    while len(new) < NEW and (not new or new[-1] != words.eos_token_id):
        with torch.no_grad():
            if blocks.architecture_of(model).encoder_decoder:
                logits = model(input_ids=torch.tensor([prompt]),
                               decoder_input_ids=torch.tensor([[0, *new]]), use_cache=False).logits
            else:
                logits = model(input_ids=torch.tensor([[*prompt, *new]]), use_cache=False).logits
        new.append(int(logits[0, -1].argmax()))
    return new


def test_equals_one_by_one_without_a_cache(tiny_model: Any, family: str) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    found = decode(model, words, prompts, max_new_tokens=NEW)
    assert [list(answer.ids) for answer in found] == [plain_greedy(model, words, prompt) for prompt in prompts]
    assert [answer.finished for answer in found] == [answer.ids[-1] == words.eos_token_id for answer in found]
    lengths = {len(answer.ids) for answer in found}
    assert len(lengths) > 1 and NEW in lengths  # rows do leave at different times


def test_any_of_several_end_tokens_ends_an_answer(tiny_model: Any) -> None:
    (model, words), prompts = lively(tiny_model("gpt2")), make_prompts()
    assert words.eos_token_id is not None
    found = decode(model, words, prompts, max_new_tokens=NEW)
    assert decode(model, Words(None), prompts, max_new_tokens=NEW, end_tokens=[words.eos_token_id, 96]) == [
        answer if 96 not in answer.ids else answer.__class__(answer.ids[:answer.ids.index(96) + 1], True) for answer in found]


@pytest.mark.parametrize("batch_tokens", [1, 110, 250])
def test_the_batch_does_not_matter(tiny_model: Any, family: str, batch_tokens: int) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    assert decode(model, words, prompts, max_new_tokens=NEW, batch_tokens=batch_tokens) == decode(
        model, words, prompts, max_new_tokens=NEW)


def test_prompts_read_in_parts_are_the_same(tiny_model: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    whole = decode(model, words, prompts, max_new_tokens=NEW)
    monkeypatch.setattr(live_file, "CPU_PREFILL_TOKENS", 50)
    assert decode(model, words, prompts, max_new_tokens=NEW) == whole


def test_equals_transformers_generate(tiny_model: Any, family: str) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts(6)
    found = decode(model, words, prompts, max_new_tokens=NEW)
    model.config.decoder_layers = len(blocks.stacks(model)[-1])  # for transformers' cache of an uneven T5
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = 0
    for prompt, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)[0]
        start = 1 if family.startswith("t5") else len(prompt)
        assert output[start:].tolist() == list(answer.ids)


def test_eager_attention_too(tiny_model: Any, architecture: str) -> None:
    (model, words), prompts = lively(tiny_model(architecture)), make_prompts()
    expected = decode(model, words, prompts, max_new_tokens=NEW)
    model.set_attn_implementation("eager")
    assert decode(model, words, prompts, max_new_tokens=NEW) == expected


def test_rows_are_read_as_far_as_they_go(tiny_model: Any, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (model, words), prompts = lively(tiny_model(architecture)), make_prompts(num=40, longest=50)
    found = decode(model, words, prompts, max_new_tokens=NEW)
    monkeypatch.setattr(by_length, "ROWS", len(prompts))
    assert decode(model, words, prompts, max_new_tokens=NEW) == found


def test_rows_are_read_a_few_at_a_time(tiny_model: Any) -> None:
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="stop"), by_length.attention_by_length(model.model, [50] * 8 + [3, 9, 5]) as options:
        assert options == {"widths": [51, 10]}
        raise ValueError("stop")
    assert model.config._attn_implementation == "sdpa"
    with by_length.attention_by_length(model.model, [50] * 8) as options:
        assert options == {}  # as few as are computed at a time


def test_with_an_adapter(tiny_model: Any, family: str) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts(10)
    before = decode(model, words, prompts, max_new_tokens=NEW)
    component = Lora(rank=4).attach(model, Streams(0), "main")
    assert decode(model, words, prompts, max_new_tokens=NEW) == before
    with torch.no_grad():
        for parameter in component.parameters().values():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    adapted = decode(model, words, prompts, max_new_tokens=NEW)
    assert adapted != before
    assert [list(answer.ids) for answer in adapted] == [plain_greedy(model, words, prompt) for prompt in prompts]


@pytest.mark.parametrize("stack", [0, -1])
def test_with_an_inserted_block(tiny_model: Any, family: str, stack: int) -> None:
    import copy

    (model, words), prompts = lively(tiny_model(family)), make_prompts(10)
    rows = blocks.stacks(model)[stack]
    rows.append(copy.deepcopy(rows[-1]))
    for index, block in enumerate(rows):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    if not family.startswith("t5"):
        model.config.num_hidden_layers = len(rows)
    found = decode(model, words, prompts, max_new_tokens=NEW)
    assert [list(answer.ids) for answer in found] == [plain_greedy(model, words, prompt) for prompt in prompts]


def test_without_an_end_token_every_answer_is_full(tiny_model: Any, family: str) -> None:
    model, _ = lively(tiny_model(family))
    found = decode(model, Words(None), make_prompts(5), max_new_tokens=NEW)
    assert {(len(answer.ids), answer.finished) for answer in found} == {(NEW, False)}
    assert {len(answer.ids) for answer in decode(model, Words(None), make_prompts(5), max_new_tokens=1)} == {1}


def test_bf16_is_near(tiny_model: Any, family: str) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    exact = decode(model, words, prompts, max_new_tokens=NEW)
    near = decode(model, words, prompts, max_new_tokens=NEW, precision="bf16")
    first = [a.ids[0] == b.ids[0] for a, b in zip(exact, near, strict=True)]
    assert sum(first) > 0.8 * len(first)


def test_keys_are_held_as_attention_takes_them() -> None:
    """Rotary embeddings leave them in fp32, in bf16 too."""
    keys, values = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    for autocast in (False, True):
        cache = SlotCache(1, 2, 8, torch.device("cpu"))
        cache.admit(torch.tensor([0]))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            seen, _ = cache.layers[0].update(keys, values.bfloat16() if autocast else values)
        assert cache.layers[0].keys.dtype == seen.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert torch.equal(cache.layers[0].keys[0, :, :3], keys[0].to(seen.dtype))


@pytest.mark.parametrize("method", [None, Lora(rank=2, targets="all-linear"), Peft(options={"r": 4, "use_dora": True})],
                         ids=["base", "lora", "dora"])
@pytest.mark.parametrize("frozen", [True, False])
def test_in_bf16_matrices_are_cast_once_and_no_bit_differs(tiny_model: Any, family: str, method: Any, frozen: bool,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """While answers are made the base's matrices are in bf16, of adapted models and of others; not before, not after."""
    model = tiny_model(family)
    if method is not None:
        params.own(model, [method.attach(model, Streams(0), "main")])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
    if frozen:
        model.requires_grad_(False)
    before, compute = digest(model), live_file.Live._logits
    prompts, logits, kinds, seen = make_prompts(5), [], set(), []

    def noted(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        kinds.update(layer.weight.dtype for layer in blocks.linears(model).values())
        logits.append(compute(self, hidden))
        return logits[-1]

    monkeypatch.setattr(live_file.Live, "_logits", noted)
    for held in (True, False):
        if not held:
            monkeypatch.setattr(decoding, "held_for_inference", lambda model, precision: FrozenMatrices(model, "fp32"))
        answers = decode(model, Words(None), prompts, max_new_tokens=NEW, precision="bf16")
        seen.append((answers, torch.cat(logits), set(kinds)))
        logits.clear(), kinds.clear()
        assert digest(model) == before
    (found, found_logits, found_kinds), (expected, expected_logits, expected_kinds) = seen
    assert found == expected and torch.equal(found_logits, expected_logits)
    assert expected_kinds == {torch.float32}
    assert torch.bfloat16 in found_kinds


def test_an_error_leaves_the_matrices_as_they_were(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    before = digest(model)

    def breaks(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        raise KeyError

    monkeypatch.setattr(live_file.Live, "_logits", breaks)
    with pytest.raises(KeyError):
        decode(model, Words(None), make_prompts(2), max_new_tokens=NEW, precision="bf16")
    assert digest(model) == before


def test_out_of_memory_halves_the_slots(tiny_model: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (model, words), prompts = lively(tiny_model(family)), make_prompts()
    expected = decode(model, words, prompts, max_new_tokens=NEW)
    step, seen = live_file.Live._embed, []

    def small(self: Any, tokens: Sequence[int]) -> Any:
        seen.append(len(tokens))
        if len(tokens) > 6:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return step(self, tokens)

    monkeypatch.setattr(live_file.Live, "_embed", small)
    assert decode(model, words, prompts, max_new_tokens=NEW) == expected
    assert max(seen) > 6 and seen[-1] <= 6

    def broken(self: Any, tokens: Sequence[int]) -> Any:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(live_file.Live, "_embed", broken)
    with pytest.raises(RuntimeError, match="luck"):
        decode(model, words, prompts, max_new_tokens=NEW)


def test_a_cache_goes_with_its_last_user(tiny_model: Any) -> None:
    """Not when the collector of cycles comes by: a group's keys would stand beside the next group's."""
    live = live_rows(tiny_model("gpt2"), 2, 10, 10)
    live.admit([[6, 7], [8]])
    keys = weakref.ref(live.cache.layers[0].keys)
    gc.disable()
    try:
        del live
        assert keys() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("architecture", "width"), [("gpt2", 23), ("t5", 3)])
def test_a_slot_holds_what_its_model_writes(tiny_model: Any, architecture: str, width: int) -> None:
    """A T5's decoder has no prompt before its answer."""
    assert live_rows(tiny_model(architecture), 2, 20, 3).cache.width == width


def test_training_mode_is_kept(tiny_model: Any) -> None:
    model = tiny_model("gpt2").train()
    decode(model, Words(), [[7, 8]], max_new_tokens=2)
    assert model.training


def sampling(seed: int = 0, **options: Any) -> Sampling:
    return Sampling(Streams(seed), **options)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.8}])
def test_samples_depend_on_seed_and_name_only(tiny_model: Any, family: str, options: dict[str, Any]) -> None:
    model, prompts = tiny_model(family), make_prompts(6)
    names = [f"item-{number}" for number in range(6)]
    first = decode(model, Words(), prompts, max_new_tokens=NEW, sampling=sampling(**options), names=names)
    for number in (0, 3, 5):
        [alone] = decode(model, Words(), [prompts[number]], max_new_tokens=NEW, sampling=sampling(**options),
                         names=[names[number]])
        assert alone == first[number]
    assert decode(model, Words(), prompts[::-1], max_new_tokens=NEW, sampling=sampling(**options), names=names[::-1],
                  batch_tokens=100) == first[::-1]
    assert decode(model, Words(), prompts, max_new_tokens=NEW, sampling=sampling(1, **options), names=names) != first


def test_logits_that_are_no_numbers_are_refused() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, float("nan")]])
    assert sampling().draw(logits[:1], torch.tensor([0.999], dtype=torch.float64)).tolist() == [1]
    with pytest.raises(ModelError, match="no token can be chosen"):
        sampling().draw(logits, torch.tensor([0.5, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("beams", [None, Beams(3)])
def test_a_model_of_which_nothing_is_left_gives_no_answers(tiny_model: Any, family: str, beams: Beams | None) -> None:
    """They would be scored: the first token with NaN is the largest of all to `argmax`."""
    model = tiny_model(family)
    with torch.no_grad():
        blocks.head(model).weight[7] = float("nan")
    with pytest.raises(ModelError, match="no token can be chosen"):
        decode(model, Words(), make_prompts(3), max_new_tokens=NEW, beams=beams)


def test_several_samples_of_one_prompt(tiny_model: Any, family: str) -> None:
    model, prompt = tiny_model(family), make_prompts(1)[0]
    found = decode(model, Words(), [prompt] * 20, max_new_tokens=NEW, sampling=sampling())
    assert len({answer.ids for answer in found}) > 10
    [alone] = decode(model, Words(), [prompt], max_new_tokens=NEW, sampling=sampling(), names=["7"])
    assert alone == found[7]
    assert len({answer.ids for answer in decode(model, Words(), [prompt] * 5, max_new_tokens=NEW)}) == 1


def test_refusals(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    with pytest.raises(DataError, match="prompt 1 is empty"):
        decode(model, Words(), [[7], []], max_new_tokens=NEW)
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        decode(model, Words(), [[7]], max_new_tokens=0)
    if not family.startswith("t5"):
        with pytest.raises(DataError, match=r"prompt 1 has 60 tokens and up to 8 .* has 64 positions"):
            decode(model, Words(), [[7], [7] * 60], max_new_tokens=NEW)
    with pytest.raises(ModelError, match=r"has no output head \(lm_head\)"):
        decode(blocks.backbone(model) if not family.startswith("t5") else _encoder_only(), Words(), [[7]],
               max_new_tokens=NEW)


def _encoder_only() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=97, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2))


def test_long_prompts_do_not_narrow_the_batch_of_short_ones() -> None:
    assert groups([3, 90, 50, 2, 45], room=10, batch_tokens=1000) == [[1, 2, 4], [0, 3]]
    assert groups([3, 90, 50, 2, 45], room=10, batch_tokens=4000) == [[1, 2, 4, 0, 3]]
    assert groups([], room=10, batch_tokens=1000) == []


def test_nothing_to_answer(tiny_model: Any) -> None:
    assert decode(tiny_model("gpt2"), Words(), [], max_new_tokens=3) == []
