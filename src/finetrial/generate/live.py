"""The rows in flight of a model: new prompts are admitted, every row goes on by a token, finished rows are dropped.

Two kinds of model, one interface. A decoder takes new prompts at any time, into the slots that finished rows left; its
rows may be of any length. The decoder of a T5 knows one place for all rows, so its prompts come when no row is left.

Shapes: R live rows, N new rows, L tokens in a prompt, S in a source, D width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from finetrial.generate.beams import Move
from finetrial.generate.by_length import attention_by_length
from finetrial.generate.cache import SlotCache
from finetrial.models import blocks

PREFILL_TOKENS = 4096  # of prompts read in one pass
CPU_PREFILL_TOKENS = 1024  # what a pass keeps then stays in a core's cache: measured a quarter faster on tiny-gpt


class Live(ABC):
    """The rows in flight, in slots 0 to R - 1."""

    refills: bool  # whether prompts may be admitted while rows are live

    def __init__(self, model: Any, num_slots: int, width: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.cache = SlotCache(len(blocks.stacks(model)[-1]), num_slots, width, self.device)

    @abstractmethod
    def admit(self, prompts: Sequence[Sequence[int]], each: int = 1) -> Tensor:
        """Read new prompts, longest first; they become the last rows, `each` rows a prompt. Logits (N, V) of their first tokens."""

    @abstractmethod
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Give every row the token it chose. Logits (R, V) of the next."""

    def drop(self, row: int) -> None:
        """Row `row` is finished; the last row takes its place."""
        self.cache.drop(row)

    def move(self, moves: Sequence[Move]) -> None:
        """Rows go on from what other rows of the same prompt hold."""
        self.cache.move(moves)

    def _logits(self, hidden: Tensor) -> Tensor:
        """The head on states (R, D), in fp32 under autocast too, as losses are computed."""
        with torch.autocast(hidden.device.type, enabled=False):
            scaled = hidden.float() * blocks.head_scale(self.model)
            return scaled @ blocks.head(self.model).weight.float().T

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        """(R, 1, D)."""
        ids = torch.tensor(tokens, device=self.device)
        embedded: Tensor = blocks.embedding(self.model)(ids)
        return embedded[:, None]


class LiveDecoder(Live):
    """GPT-2, Llama and their like: prompt and answer are one sequence."""

    refills = True

    def admit(self, prompts: Sequence[Sequence[int]], each: int = 1) -> Tensor:
        return torch.cat([self._read(part, each) for part in _parts(prompts, self.device)])

    def _read(self, prompts: Sequence[Sequence[int]], each: int) -> Tensor:
        texts, copies = _distinct(prompts, each, self.device)
        ids, mask = _padded(texts, self.device)
        self.cache.admit(copies)
        # causal order hides the padding, which is behind the text, and what is written of it is overwritten in time
        output = blocks.backbone(self.model)(
            inputs_embeds=blocks.embedding(self.model)(ids), past_key_values=self.cache, use_cache=True,
            position_ids=torch.arange(ids.shape[1], device=self.device).expand_as(ids))
        last = output.last_hidden_state[torch.arange(len(ids), device=self.device), mask.sum(1) - 1]
        self.cache.admitted([len(prompt) for prompt in prompts for _ in range(each)])
        return self._logits(last)[copies]

    def step(self, tokens: Sequence[int]) -> Tensor:
        positions, backbone = self.cache.lengths[:self.cache.num_rows, None], blocks.backbone(self.model)
        with attention_by_length(backbone, self.cache.held) as options:
            output = backbone(inputs_embeds=self._embed(tokens), past_key_values=self.cache, use_cache=True,
                              position_ids=positions, attention_mask=self.cache.mask(), **options)
        self.cache.grow()
        return self._logits(output.last_hidden_state[:, -1])


class LiveEncoderDecoder(Live):
    """T5: the encoder reads the prompt once, and what the decoder sees of it is kept beside its own keys and values."""

    refills = False

    def admit(self, prompts: Sequence[Sequence[int]], each: int = 1) -> Tensor:
        assert self.cache.num_rows == 0, "rows of an encoder-decoder begin together"
        texts, copies = _distinct(prompts, each, self.device)
        ids, mask = _padded(texts, self.device)
        states = torch.zeros(*ids.shape, blocks.embedding(self.model).embedding_dim, device=self.device)
        at = 0
        for part in _parts(texts, self.device):
            rows, longest = slice(at, at + len(part)), len(part[0])
            states[rows, :longest] = blocks.encode(self.model, ids[rows, :longest], mask[rows, :longest])
            at += len(part)
        self._states, hidden = states[copies], ~mask[copies]
        self._mask = torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, float("-inf"))[:, None, None]
        self._cross = DynamicCache()
        self._both = EncoderDecoderCache(self.cache, self._cross)
        self.cache.admitted([0] * len(copies))
        return self.step([blocks.start_id(self.model)] * len(copies))

    def step(self, tokens: Sequence[int]) -> Tensor:
        rows = self.cache.num_rows
        output = blocks.decoder(self.model)(
            inputs_embeds=self._embed(tokens), past_key_values=self._both, use_cache=True,
            attention_mask=self.cache.mask(), encoder_hidden_states=self._states[:rows],
            encoder_attention_mask=self._mask[:rows])
        self.cache.grow()
        return self._logits(output.last_hidden_state[:, -1])

    def drop(self, row: int) -> None:
        last = self.cache.num_rows - 1
        if row != last:
            self._mask[row] = self._mask[last]
        for layer in self._cross.layers:
            if row != last:
                layer.keys[row], layer.values[row] = layer.keys[last], layer.values[last]
            layer.keys, layer.values = layer.keys[:last], layer.values[:last]
        super().drop(row)


def live_rows(model: Any, num_slots: int, longest: int, room: int) -> Live:
    """The kind of rows that a model has, without any yet: for prompts of at most `longest` tokens and answers of `room`."""
    if blocks.architecture_of(model).encoder_decoder:
        return LiveEncoderDecoder(model, num_slots, room)  # the prompt is the encoder's
    return LiveDecoder(model, num_slots, longest + room)


def _parts(prompts: Sequence[Sequence[int]], device: torch.device) -> list[Sequence[Sequence[int]]]:
    """Prompts, longest first, in parts of at most so many tokens with their padding."""
    parts, at = [], 0
    most = CPU_PREFILL_TOKENS if device.type == "cpu" else PREFILL_TOKENS
    while at < len(prompts):
        size = max(1, most // len(prompts[at]))
        parts.append(prompts[at:at + size])
        at += size
    return parts


def _distinct(prompts: Sequence[Sequence[int]], each: int, device: torch.device) -> tuple[list[tuple[int, ...]], Tensor]:
    """The different prompts, and which of them each row is: several samples of one prompt, or `each` beams, are read once."""
    texts = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    number = {text: index for index, text in enumerate(texts)}
    return texts, torch.tensor([number[tuple(prompt)] for prompt in prompts for _ in range(each)],
                               device=device)


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (N, L), padded on the right with token 0, and where they are real (N, L)."""
    lengths = torch.tensor([len(text) for text in texts])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = torch.tensor([token for text in texts for token in text])
    return ids.to(device), mask.to(device)
