"""Which kernels attention is given to; the GPU is a mock, the rest is transformers' own code."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations import sdpa_attention

from finetrial.models.attention_kernels import GroupedWhereFlash, choose_attention_kernels, repeat_keys_without_flash

HEADS, KEY_HEADS, TOKENS, WIDTH = 4, 2, 6, 8


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """transformers' function, in its place before and after."""
    found = sdpa_attention.use_gqa_in_sdpa
    found = getattr(found, "_own", found)
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", found)
    yield found


def asked(device: str, dtype: torch.dtype, *, capability: tuple[int, int], mask: Any = None, autocast: torch.dtype | None = None,
          monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: autocast is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: autocast)
    key = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(1, KEY_HEADS, TOKENS, WIDTH))
    repeat_keys_without_flash()
    return bool(sdpa_attention.use_gqa_in_sdpa(mask, key, key))


@pytest.mark.parametrize(("dtype", "autocast", "capability", "expected"), [
    (torch.float32, None, (9, 0), False), (torch.bfloat16, None, (9, 0), True), (torch.float32, torch.bfloat16, (8, 0), True),
    (torch.float32, torch.float16, (7, 5), False), (torch.float16, None, (7, 5), False)])
def test_on_cuda_torch_shares_keys_only_where_flash_takes_them(dtype: torch.dtype, autocast: torch.dtype | None,
                                                               capability: tuple[int, int], expected: bool,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked("cuda:0", dtype, capability=capability, autocast=autocast, monkeypatch=monkeypatch) == expected
    assert not asked("cuda:0", dtype, capability=capability, autocast=autocast, mask=object(), monkeypatch=monkeypatch)


def test_on_a_cpu_nothing_changes(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for mask in (None, object()):
        key = torch.zeros(1, KEY_HEADS, TOKENS, WIDTH)
        expected = own(mask, key, key)
        assert asked("cpu", torch.float32, capability=(0, 0), mask=mask, monkeypatch=monkeypatch) == expected


def test_both_ways_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers does where the answer is no."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, TOKENS, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    layer = torch.nn.Module()
    layer.num_key_value_groups = HEADS // KEY_HEADS
    found = []
    for answer in (True, False):
        monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", GroupedWhereFlash(lambda *_, answer=answer: answer))
        found.append(sdpa_attention.sdpa_attention_forward(layer, query, key, value, None)[0])
    torch.testing.assert_close(*found)


def test_it_is_put_in_place_once_and_only_where_there_is_such_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_keys_without_flash()
    first = sdpa_attention.use_gqa_in_sdpa
    repeat_keys_without_flash()
    assert sdpa_attention.use_gqa_in_sdpa is first
    monkeypatch.delattr(sdpa_attention, "use_gqa_in_sdpa")
    repeat_keys_without_flash()
    assert not hasattr(sdpa_attention, "use_gqa_in_sdpa")


def test_older_transformers_ask_without_the_values() -> None:
    assert GroupedWhereFlash(lambda mask, key: mask is None)(None, torch.zeros(1))


def test_cudnn_is_not_asked() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        choose_attention_kernels()
        assert not torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
