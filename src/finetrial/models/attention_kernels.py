"""Which of torch's attention kernels compute, on CUDA.

Not cuDNN's, which torch 2.11 and later ask first on an H100 and its like. It makes a plan for every shape, and rows of text have a
new length at nearly every step; and under a mask, which packed rows always have, it has given gradients that are no numbers
(pytorch#196678). Flash and memory-efficient attention take the same products.

Keys that several heads share: in a kernel that does not write out every score. Without a mask transformers leaves it to
torch to give each head its keys (`enable_gqa`). Of torch's fused kernels only flash attention does that, and it takes products
in 16 bits on a GPU of capability 8.0 or more. Elsewhere (fp32, a T4) torch falls back to the unfused kernel without a word:
slower, and it keeps all scores, rows x heads x tokens x tokens. Where flash cannot be had the keys are repeated instead, which
the memory-efficient kernel takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLASH_CAPABILITY = (8, 0)


class GroupedWhereFlash:
    """In the place of transformers' `use_gqa_in_sdpa`, which is asked by every layer: as it says, but on CUDA only where
    flash attention takes the products. On other devices nothing changes."""

    def __init__(self, own: Callable[..., bool]) -> None:
        self._own = own

    def __call__(self, attention_mask: Tensor | None, key: Tensor, *more: Any) -> bool:
        """Whether torch is to give each head its keys. Versions of transformers differ in what comes after `key`."""
        return self._own(attention_mask, key, *more) and (key.device.type != "cuda" or flash_takes(key))


def flash_takes(key: Tensor) -> bool:
    """Whether flash attention computes with keys like these: their type, or autocast's, has 16 bits, and the GPU is recent."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else key.dtype
    return dtype in (torch.float16, torch.bfloat16) and torch.cuda.get_device_capability(key.device) >= FLASH_CAPABILITY


def choose_attention_kernels() -> None:
    """Have every model of this process compute so. Nothing happens the second time; CUDA is not started."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    repeat_keys_without_flash()


def repeat_keys_without_flash() -> None:
    """Have every model of transformers in this process do so. Nothing happens the second time, or where transformers asks
    no such function."""
    from transformers.integrations import sdpa_attention

    own = getattr(sdpa_attention, "use_gqa_in_sdpa", None)
    if own is not None and not isinstance(own, GroupedWhereFlash):
        sdpa_attention.use_gqa_in_sdpa = GroupedWhereFlash(own)
