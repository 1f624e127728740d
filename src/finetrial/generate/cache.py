"""Keys and values of the rows in flight, written in place.

A fixed number of slots, each wide enough for a prompt and its answer, is allocated once; live rows fill the first ones.
Row r holds `lengths[r]` tokens from the left, so a prompt is read without padding before it, and a new token goes to
place `lengths[r]`, whatever the other rows do. A finished row is dropped by moving the last live row into its slot: one
row is copied, where keeping the cache dense would copy all of it.

Shapes: R live rows, N new rows, H heads of keys, W width of a slot, D width of a head.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from finetrial.generate.beams import Move


class SlotCache(Cache):  # type: ignore[misc]
    """A cache for models of transformers, which call `update` in every layer. Layers are allocated at the first call.

    Between `admit` and `admitted` what is written are new rows with all their tokens; else the next token of all rows.
    """

    def __init__(self, num_layers: int, num_slots: int, width: int, device: torch.device) -> None:
        self.num_slots, self.width = num_slots, width
        self.lengths = torch.zeros(num_slots, dtype=torch.long, device=device)
        self.places = torch.arange(num_slots, device=device)
        self.held: list[int] = []  # `lengths` of the live rows, on the host
        self.copies: Tensor | None = None  # while rows are admitted: which of the new texts each is
        super().__init__(layers=[_Layer(self) for _ in range(num_layers)])

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.held)

    @property
    def seen(self) -> int:
        """The most tokens that a live row holds."""
        return max(self.held, default=0)

    def admit(self, copies: Tensor) -> None:
        """The tokens that come next are those of new rows: row i is text `copies[i]` of the forward pass."""
        assert self.num_rows + len(copies) <= self.num_slots
        self.copies = copies

    def admitted(self, lengths: Sequence[int]) -> None:
        """The new rows are live, with `lengths` tokens each."""
        start, self.copies = self.num_rows, None
        self.held += lengths
        self.lengths[start:self.num_rows] = torch.tensor(lengths, device=self.lengths.device)

    def grow(self) -> None:
        """Every live row has got one token more."""
        self.lengths[:self.num_rows] += 1
        self.held = [length + 1 for length in self.held]

    def drop(self, row: int) -> None:
        """Row `row` is finished: the last live row takes its slot."""
        last, length = self.num_rows - 1, self.held.pop()
        if row == last:
            return
        self.held[row] = length
        self.lengths[row] = length
        for layer in self.layers:
            layer.keys[row, :, :length] = layer.keys[last, :, :length]
            layer.values[row, :, :length] = layer.values[last, :, :length]

    def move(self, moves: Sequence[Move]) -> None:
        """Rows go on from what other rows of as many tokens hold; only where they differ is anything copied."""
        places = [(move.slot, move.source, place) for move in moves
                  for place in range(self.held[move.slot] - move.num_tokens, self.held[move.slot])]
        if not places:
            return
        rows, sources, tokens = torch.tensor(places, device=self.lengths.device).T
        for layer in self.layers:
            layer.keys[rows, :, tokens] = layer.keys[sources, :, tokens]
            layer.values[rows, :, tokens] = layer.values[sources, :, tokens]

    def mask(self) -> Tensor:
        """The additive mask (R, 1, 1, seen + 1) under which the next token of a row sees itself and all before it."""
        hidden = torch.arange(self.seen + 1, device=self.lengths.device) > self.lengths[:self.num_rows, None]
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))[:, None, None]


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: (slots, H, W, D) each."""

    is_sliding = False

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = weakref.proxy(cache)  # else the tensors would wait for the collector of cycles

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        slots, width, device = self._cache.num_slots, self._cache.width, key_states.device.type
        # as attention takes them: rotary embeddings leave keys in fp32, and autocast would cast all of them at every step
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        # zeros: what a mask hides must still be finite
        self.keys = key_states.new_zeros(slots, key_states.shape[1], width, key_states.shape[3], dtype=dtype)
        self.values = value_states.new_zeros(slots, value_states.shape[1], width, value_states.shape[3], dtype=dtype)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep new states (N or R, H, tokens, D); return those that the queries may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        cache, key_states, value_states = self._cache, key_states.to(self.keys.dtype), value_states.to(self.values.dtype)
        start = cache.num_rows
        if cache.copies is not None:
            rows, tokens = slice(start, start + len(cache.copies)), key_states.shape[2]
            self.keys[rows, :, :tokens] = key_states[cache.copies]
            self.values[rows, :, :tokens] = value_states[cache.copies]
            return key_states, value_states
        places = cache.places[:start], slice(None), cache.lengths[:start]
        self.keys[places] = key_states[:, :, 0]
        self.values[places] = value_states[:, :, 0]
        return self.keys[:start, :, :cache.seen + 1], self.values[:start, :, :cache.seen + 1]

    def get_seq_length(self) -> int:
        """Tokens before the queries: none where a row begins."""
        return 0 if self._cache.copies is not None else self._cache.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        width: int = self._cache.width
        return width
