"""How the next token is chosen: the most likely one, or a draw.

A draw takes one uniform number a token from the row's own stream, `sampling/<name>`, and looks it up in the cumulative
probabilities: who shares the batch changes nothing but the rounding of logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetrial.errors import ModelError, UserError
from finetrial.streams import Streams


@dataclass(frozen=True)
class Sampling:
    """Draws from softmax(logits / temperature), kept to the `top_k` likeliest tokens, and of those to the fewest that
    together have probability `top_p` (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751)."""

    streams: Streams
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}; expected a number above 0",
                            "for the most likely token each time use greedy decoding (do_sample: false)")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}; expected at least 1", "leave it out to draw from all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; expected a probability above 0 and at most 1",
                            "leave it out to draw from all tokens")

    def draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """A token for each row: logits (R, V) and uniform numbers (R,) in [0, 1) to tokens (R,).

        Raises ModelError for logits of which none can be drawn.
        """
        scores = logits.double() / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[1]:
            least = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        probabilities = scores.softmax(1)
        if self.top_p is not None:
            ranked, order = probabilities.sort(dim=1, descending=True, stable=True)
            beyond = ranked.cumsum(1) - ranked >= self.top_p
            probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), 0.0)
        cumulative = probabilities.cumsum(1)
        check_numbers(cumulative[:, -1])
        wanted = uniforms[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, wanted, right=True)[:, 0]


def check_numbers(best: Tensor) -> None:
    """Raises ModelError where the value by which a row's token is chosen, (R,), is no number: NaN comes before all others."""
    if not bool(best.isfinite().all()):
        raise ModelError("the model's logits are no numbers, so that no token can be chosen",
                         "its weights have diverged, or its precision is too low: lower the learning rate, or generate in fp32")
