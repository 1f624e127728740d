"""Floating-point operations of a stage, and the time they take at a known rate. What is not known stays unknown.

A product with a matrix of N parameters takes 2 N operations a token forward, 2 N for the gradient of its input and 2 N
for its own (Kaplan et al. 2020, arXiv 2001.08361, section 2.1): 6 N where everything is trained, 4 N where the base is
frozen under adapters, 2 N in blocks below everything that is trained. Attention takes 4 L A a token and layer forward
(Chowdhery et al. 2022, arXiv 2204.02311, appendix B), with no discount for causal order, and twice that backward.
"""

from __future__ import annotations

import re

from finetrial.errors import UserError
from finetrial.plan.forecast.shapes import ModelShapes
from finetrial.plan.forecast.trained import Trained

_RATE = re.compile(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([GTP]?)(?:FLOPS|FLOP/s)?\s*", re.IGNORECASE)
_FACTORS = {"": 1.0, "G": 1e9, "T": 1e12, "P": 1e15}


def given_rate(text: str) -> float:
    """`20TFLOPS`, `650 GFLOPS` or `2e13`, in operations a second. Raises UserError."""
    match = _RATE.fullmatch(text)
    try:
        rate = float(match.group(1)) * _FACTORS[match.group(2).upper()] if match else 0.0
    except ValueError:
        rate = 0.0
    if rate <= 0:
        raise UserError(f"--rate {text!r} is no rate of operations", "write it as 20TFLOPS, 650GFLOPS or 2e13: what "
                        "matrix products reach on the device")
    return rate


def training_operations(shapes: ModelShapes, trained: Trained, tokens: int, length: int) -> float | None:
    """Of a phase that sees `tokens` tokens in rows of `length`; None where a method cannot count its parameters.

    Of an encoder-decoder half of the tokens are taken to be the source.
    """
    if trained.parameters is None:
        return None
    total = 0.0
    seen = tokens / len(shapes.stacks)
    for stack, reached in zip(shapes.stacks, trained.stacks, strict=True):
        matrices = stack.matrices(shapes.width)
        attention = 4 * length * stack.attention_width * (2 if stack.cross else 1)
        backward = (reached.passed - reached.new) * (2 * matrices + 2 * attention)
        total += seen * (stack.depth * (2 * matrices + attention) + backward)
    head = shapes.embedding * seen * (6 if trained.embedding else 4)
    return total + head + 2 * seen * (trained.matrices + 3 * trained.added)


def forward_operations(shapes: ModelShapes, tokens: int, length: int, *, predicted: int | None = None) -> float:
    """Of reading `tokens` tokens in rows of `length`, with logits for `predicted` of them (all, unless given)."""
    seen = tokens / len(shapes.stacks)
    total = sum(seen * stack.depth * (2 * stack.matrices(shapes.width)
                                      + 4 * length * stack.attention_width * (2 if stack.cross else 1))
                for stack in shapes.stacks)
    return total + 2 * shapes.embedding * (seen if predicted is None else predicted)


def generation_operations(shapes: ModelShapes, num_rows: int, prompt_tokens: int, new_tokens: int, *, beams: int = 1) -> float:
    """Of reading every prompt and writing `new_tokens` to each, every token read once, `beams` answers a prompt."""
    if not shapes.encoder_decoder:
        width, tokens = prompt_tokens + new_tokens, prompt_tokens + beams * new_tokens
        return forward_operations(shapes, num_rows * tokens, width, predicted=num_rows * beams * new_tokens)
    encoder, decoder = (stack.depth * (2 * stack.matrices(shapes.width) + 4 * length * stack.attention_width)
                        for stack, length in zip(shapes.stacks, (prompt_tokens, prompt_tokens + new_tokens), strict=True))
    return num_rows * (prompt_tokens * encoder + beams * new_tokens * (decoder + 2 * shapes.embedding))
