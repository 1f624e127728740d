"""The loss, computed only where there is a target.

The backbone gives hidden states for a whole batch; the head is applied only at the places that predict a target, a
chunk of them at a time, and cross entropy is taken in fp32. `check_base` compares this with the model's own loss once.

Shapes: R rows, L tokens in a row, S tokens in a source, T targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from finetrial.errors import DataError, ModelError, is_out_of_memory
from finetrial.models import blocks
from finetrial.train.batch import Batch, Documents, check_lengths, longest_sides, make_batch, target_counts
from finetrial.train.config import Precision
from finetrial.train.packing import IntArray
from finetrial.train.precision import autocast
from finetrial.train.reuse import Reuse, within
from finetrial.train.widen import filled, makes_kernels

CHUNK_LOGITS = 1 << 22  # logits computed at a time: 16 MB in fp32
CHUNK_LOGITS_ON_CUDA = 1 << 25  # 128 MB: with a large vocabulary, products of enough rows to fill a GPU


def summed_loss(model: nn.Module, batch: Batch, reuse: Reuse | None = None) -> Tensor:
    """The sum over targets of the negative log-likelihood, in nats: a scalar with gradient."""
    hidden = target_states(model, batch, reuse)
    return summed_cross_entropy(model, hidden, batch.target_ids)


def summed_cross_entropy(model: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """The sum of the negative log-likelihood of targets (T,), from the states (T, D) that predict them: a scalar."""
    loss: Tensor = _SummedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, blocks.head(model).weight, targets)
    return loss


@torch.no_grad()
def target_losses(model: nn.Module, batch: Batch, reuse: Reuse | None = None) -> Tensor:
    """The negative log-likelihood of each target, in nats: (T,) float32, the head in fp32 under autocast too."""
    return cross_entropies(model, target_states(model, batch, reuse), batch.target_ids)


def cross_entropies(model: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """The negative log-likelihood of each of the targets (T,), from the states (T, D) that predict them, without gradient."""
    hidden = hidden.float()
    weight = blocks.head(model).weight.float()
    parts = []
    with torch.autocast(hidden.device.type, enabled=False):
        for part in _chunks(len(hidden), chunk_size(weight)):
            logits = hidden[part] @ weight.T  # (C, V)
            parts.append(nn.functional.cross_entropy(logits, targets[part], reduction="none"))
    return torch.cat(parts) if parts else hidden.new_zeros(0)


def target_states(model: nn.Module, batch: Batch, reuse: Reuse | None = None) -> Tensor:
    """The hidden states that predict the targets, as the head takes them: (T, D). `reuse` spares frozen first blocks."""
    with within(reuse, batch):
        hidden = _last_states(model, batch).flatten(0, 1)  # (R * L, D)
    if batch.num_targets != len(hidden):  # in plain text it is every place, in order
        hidden = hidden.index_select(0, batch.target_places)
    scale = blocks.head_scale(model)
    return hidden if scale == 1 else hidden * scale


def item_losses(model: nn.Module, dataset: Documents, *, batch_tokens: int = 8192, precision: Precision = "fp32",
                reuse: Reuse | None = None) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], IntArray]:
    """Per document: the summed negative log-likelihood of its targets in nats (float64) and their number (int64).

    The result does not depend on who shares a batch beyond rounding (1e-5). Raises DataError for a document beyond the
    model's positions.
    """
    limit = blocks.max_positions(model.config)
    if limit is not None:
        check_lengths(longest_sides(dataset), limit, what="the model's positions")
    training = model.training
    model.eval()
    with autocast(next(model.parameters()).device, precision):
        found = summed_by_document(model, dataset, lambda batch: target_losses(model, batch, reuse), batch_tokens=batch_tokens)
    model.train(training)
    return found


def summed_by_document(model: nn.Module, dataset: Documents, of_targets: Callable[[Batch], Tensor], *, batch_tokens: int = 8192,
                       ) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], IntArray]:
    """Per document: the sum over its targets (float64) of what `of_targets` gives for each target of a batch (T,), and
    their number (int64).

    Batches are on the model's device. Documents of like length share one of at most `batch_tokens` places, one document a
    row; one that memory does not suffice for is halved. Raises the library's out-of-memory error where a single document
    does not fit.
    """
    counts, start_id = target_counts(dataset), blocks.start_id(model)
    sums, device = np.zeros(len(counts)), next(model.parameters()).device
    waiting = deque(documents[counts[documents] > 0] for documents in length_sorted(longest_sides(dataset), batch_tokens))
    while waiting:
        documents = waiting.popleft()
        if len(documents) == 0:
            continue
        try:
            batch = make_batch(dataset, [(int(document),) for document in documents], start_id=start_id).to(device)
            found = of_targets(batch).cpu().double().numpy()
        except RuntimeError as error:
            if len(documents) == 1 or not is_out_of_memory(error):
                raise
            half = len(documents) // 2
            waiting.extendleft((documents[half:], documents[:half]))
            continue
        sums[documents] = np.add.reduceat(found, np.cumsum(counts[documents]) - counts[documents])
    return sums, counts


def length_sorted(lengths: IntArray, batch_tokens: int) -> list[IntArray]:
    """Documents in batches of like length, longest first, each of at most `batch_tokens` places with its padding."""
    order = np.argsort(-lengths, kind="stable")
    batches, at = [], 0
    while at < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[at]])))
        batches.append(order[at:at + size])
        at += size
    return batches


@torch.no_grad()
def check_base(model: Any, batch: Batch, *, tolerance: float = 1e-4) -> None:
    """Compare the loss of this file with the model's own on one batch.

    Raises ModelError if they differ by more than `tolerance`, relatively: the head then does something that this file
    does not know (a cap on logits, a scale), and no number from it would be right.
    """
    labels, inside = _labels(batch)
    training = model.training
    model.eval()
    own = float(model(**_inputs(model, batch), labels=labels).loss)
    ours = float(target_losses(model, batch)[inside].mean())
    model.train(training)
    if not abs(own - ours) <= tolerance * abs(own):
        raise ModelError(f"the model's own loss is {own:.6f}, but its hidden states and head give {ours:.6f}",
                         f"models of type {model.config.model_type!r} like this one are not supported")


def chunk_size(head: Tensor) -> int:
    """How many targets' logits are computed at a time, by a head (V, D), on its device."""
    return max(1, (CHUNK_LOGITS_ON_CUDA if head.device.type == "cuda" else CHUNK_LOGITS) // len(head))


def check_positions(model: Any, sequence_length: int) -> None:
    """Raise DataError if a row is longer than the model's positions."""
    limit = blocks.max_positions(model.config)
    if limit is not None and sequence_length > limit:
        raise DataError(f"sequence_length is {sequence_length}, but the model has {limit} positions",
                        f"set sequence_length to at most {limit}")


class _SummedCrossEntropy(torch.autograd.Function):
    """sum of -log softmax(hidden W^T)[target], keeping no logits: gradients are taken on the way forward, in chunks.

    d/dlogits = softmax - onehot; d/dhidden = that W; d/dW = that^T hidden. As the loss is a sum, backward only scales.
    Products run in autocast's type where it is on; the softmax is in fp32. Where kernels are made for every shape, the
    last chunk is filled up with states of nothing.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        num_targets, size = len(hidden), chunk_size(weight)
        if makes_kernels(device, dtype):
            more, size = filled(num_targets) - num_targets, filled(size)
            hidden, targets = pad(hidden, (0, 0, 0, more)), pad(targets, (0, more))
        d_hidden = torch.empty_like(hidden, dtype=dtype) if need_hidden else None  # (T, D)
        d_weight = torch.zeros_like(weight) if need_weight else None  # (V, D), summed in the weight's type
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            for part in _chunks(len(hidden), size):
                state, real = hidden[part].to(dtype), num_targets - part.start
                logits = (state @ matrix.T).float()  # (C, V)
                target = targets[part, None]
                peak = logits.amax(1, keepdim=True)
                reached = logits.gather(1, target)
                slope = logits.softmax(1)  # (C, V)
                # the most likely token has probability 1 / sum(exp(logits - peak))
                total += (peak - slope.amax(1, keepdim=True).log() - reached)[:real].sum()
                if d_hidden is not None or d_weight is not None:
                    slope.scatter_add_(1, target, slope.new_full(target.shape, -1.0))
                    slope[real:] = 0
                    slope = slope.to(dtype)
                if d_hidden is not None:
                    torch.mm(slope, matrix, out=d_hidden[part])
                if d_weight is not None and dtype == weight.dtype:
                    d_weight.addmm_(slope.T, state)
                elif d_weight is not None:
                    d_weight += slope.T @ state
        ctx.save_for_backward(None if d_hidden is None else d_hidden[:num_targets], d_weight)
        ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return (None if d_hidden is None else d_hidden.to(ctx.hidden_dtype) * scale,
                None if d_weight is None else d_weight * scale, None)


def _labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels (R, L) as the model's own loss takes them, -100 where nothing is predicted, and which targets (T,) they
    hold: a causal model shifts them itself, so it knows no target beyond the row."""
    width = batch.input_ids.shape[1]
    shift = 1 if batch.source_ids is None else 0
    inside = batch.target_places % width < width - shift
    labels = torch.full_like(batch.input_ids, -100)
    labels.view(-1)[batch.target_places[inside] + shift] = batch.target_ids[inside]
    return labels, inside


def _last_states(model: nn.Module, batch: Batch) -> Tensor:
    """The hidden states after the final norm: (R, L, D)."""
    if batch.source_ids is None:
        output = blocks.backbone(model)(**_inputs(model, batch))
    else:
        source = blocks.encode(model, batch.source_ids, batch.source_mask)
        output = blocks.decoder(model)(inputs_embeds=blocks.embedding(model)(batch.input_ids),
                                       encoder_hidden_states=source, encoder_attention_mask=batch.source_mask,
                                       use_cache=False)
    states: Tensor = output.last_hidden_state
    return states


def _inputs(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """What the whole model takes; for a decoder, its backbone too. Embeddings instead of ids: given ids, transformers
    would look at every batch for padding, and warn about a mask that causal order makes needless."""
    if batch.source_ids is not None:
        return {"inputs_embeds": blocks.embedding(model)(batch.source_ids), "attention_mask": batch.source_mask,
                "decoder_input_ids": batch.input_ids, "use_cache": False}
    return {"inputs_embeds": blocks.embedding(model)(batch.input_ids), "position_ids": batch.position_ids,
            "attention_mask": batch.attention(), "use_cache": False}


def _chunks(num_targets: int, size: int) -> list[slice]:
    return [slice(at, at + size) for at in range(0, num_targets, size)]
