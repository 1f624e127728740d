"""What a forward pass keeps for the backward pass, from shapes alone.

The count follows what autograd saves in the blocks of transformers (Korthikanti et al. 2022, arXiv 2205.05198, section
4.1, count the same for a GPT block): a norm its input; a matrix its input, where it is trained or an adapter reads it;
attention its queries, keys, values and result (SDPA), or its probabilities (eager); an activation its input; a gate all
three factors. In mixed precision the residual stream, norms and probabilities are in fp32, the rest in the type of
products, and every matrix that reads a norm's output keeps a cast copy of its own.

Shapes: R rows, L tokens in a row, S tokens in a source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetrial.plan.forecast.shapes import ModelShapes, Stack
from finetrial.plan.forecast.trained import Trained, every_reader

FP32 = 4


@dataclass(frozen=True)
class Pass:
    """One forward pass: `rows` of `length` tokens, of an encoder-decoder of as many on either side. `product`: bytes of
    a number in products (4, or 2 in mixed precision); `masked`: rows hold several documents, which need a mask;
    `repeats_keys`: keys are repeated for the heads that share them without a mask too (`models/attention_kernels.py`)."""

    rows: int
    length: int
    product: int = FP32
    eager: bool = False
    masked: bool = False
    checkpointing: bool = False
    repeats_keys: bool = False

    @property
    def tokens(self) -> int:
        """R * L."""
        return self.rows * self.length

    @property
    def mixed(self) -> bool:
        """Whether products run in another type than fp32."""
        return self.product < FP32


def kept_bytes(shapes: ModelShapes, trained: Trained, run: Pass) -> int:
    """All that the blocks, the final norms and the embeddings keep until the backward pass has read it."""
    total = 0
    for stack, reached in zip(shapes.stacks, trained.stacks, strict=True):
        if not reached.passed:
            continue
        frozen = block_bytes(shapes, stack, reached.readers, run, norms=False, rank=trained.rank)
        whole = block_bytes(shapes, stack, every_reader(shapes, stack), run, norms=True)
        num_whole = min(reached.whole, reached.passed)
        if run.checkpointing:  # Chen et al. 2016, arXiv 1604.06174: block inputs, and one block computed again
            total += reached.passed * run.tokens * shapes.width * FP32 + max(frozen, whole if num_whole else 0)
        else:
            total += num_whole * whole + (reached.passed - num_whole) * frozen
        outside = 3 if shapes.rms and trained.embedding else 2  # embedded ids; the final norm's input, and that normalised
        total += run.tokens * shapes.width * outside * FP32
    return total


def block_bytes(shapes: ModelShapes, stack: Stack, readers: Mapping[str, float], run: Pass, *, norms: bool,
                rank: int = 0) -> int:
    """What one block keeps. `readers`: matrices that keep their input, by role; `norms`: whether norms are trained."""
    width, product = shapes.width, run.product
    num_norms = shapes.norms + (1 if stack.cross else 0)
    each_norm = width * FP32 * (2 if shapes.rms and norms else 1) + (1 if shapes.rms else 2) * FP32
    token = num_norms * each_norm + rank * sum(readers.values()) * product
    for role in ("attention", "mlp", "cross"):
        token += _cast_input(width, readers.get(role, 0.0), run)
    token += _attention(shapes, stack, readers.get("out", 0.0), run, norms=norms)
    inner = stack.inner * product
    token += 3 * inner if stack.gated else inner
    if not shapes.relu or stack.gated or run.mixed:  # the result of relu is what it keeps itself
        token += min(1.0, readers.get("down", 0.0)) * inner
    if stack.cross:
        token += _cross_attention(stack, readers, run)
        if run.mixed:
            token += readers.get("source", 0.0) * width * product
    return int(run.tokens * token)


def working_bytes(shapes: ModelShapes, run: Pass) -> int:
    """The most that one block needs for a moment: the tensors inside its MLP or its attention, or their gradients."""
    most = 0.0
    for stack in shapes.stacks:
        inside = (3 if stack.gated else 2) * stack.inner * run.product
        attention = 2 * (stack.attention_width + stack.key_width) * run.product
        if run.eager:
            attention += 3 * stack.heads * run.length * FP32
        most = max(most, max(inside, attention) + 2 * shapes.width * FP32)
    return int(run.tokens * most)


def mask_bytes(shapes: ModelShapes, run: Pass) -> int:
    """Masks and position biases: one for all blocks of a stack."""
    square = run.length**2 * FP32
    if shapes.encoder_decoder:  # self-attention of either side and cross-attention: a mask by row, a bias by head
        return 3 * (run.rows + shapes.stacks[0].heads) * square
    return run.rows * square if run.masked else 0


def _cast_input(width: int, readers: float, run: Pass) -> float:
    """The input of matrices that read a norm: one tensor in fp32, a copy for each in mixed precision."""
    return width * (readers * run.product if run.mixed else min(1.0, readers) * FP32)


def _attention(shapes: ModelShapes, stack: Stack, read: float, run: Pass, *, norms: bool) -> float:
    """Queries, keys, values and the result; keys repeated for each head that shares them where a kernel asks for it."""
    queries, keys = stack.attention_width, stack.key_width
    repeated = run.eager or run.masked or run.repeats_keys
    kept = (queries + 2 * (queries if repeated else keys)) * run.product
    if shapes.head_norms:
        kept += (queries + keys) * FP32 * (2 if norms else 1)
    if run.eager:
        return kept + min(1.0, read) * queries * run.product + _probabilities(stack, run)
    return kept + queries * run.product + stack.heads * FP32


def _cross_attention(stack: Stack, readers: Mapping[str, float], run: Pass) -> float:
    """Queries of this side, keys and values of the other (as many tokens), probabilities or the result."""
    kept = 3 * stack.attention_width * run.product
    if run.eager:
        return kept + min(1.0, readers.get("cross out", 0.0)) * stack.attention_width * run.product \
            + _probabilities(stack, run)
    return kept + stack.attention_width * run.product + stack.heads * FP32


def _probabilities(stack: Stack, run: Pass) -> float:
    """Eager attention keeps the softmax in fp32, and in mixed precision its cast."""
    return stack.heads * run.length * (FP32 + (run.product if run.mixed else 0))
