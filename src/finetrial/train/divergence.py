"""How far an adapted model has moved from its base: the divergence of their next-token distributions.

KL(base || adapted) at each target place, summed over an item's targets, in nats; 0 where both predict alike. Being of
whole distributions it sees drift that the loss of the one true token does not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from finetrial.models import blocks
from finetrial.train.batch import Batch, Documents
from finetrial.train.loss import chunk_size, summed_by_document, target_states
from finetrial.train.packing import IntArray


@torch.no_grad()
def item_divergences(base: nn.Module, adapted: nn.Module, dataset: Documents, *, batch_tokens: int = 8192,
                     ) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], IntArray]:
    """Per document: KL(base || adapted) summed over its targets, in nats (float64), and their number (int64).

    Both models are on one device, in evaluation mode, over one vocabulary. A batch that memory does not suffice for is halved.
    """
    def of_targets(batch: Batch) -> Tensor:
        return _divergences(target_states(base, batch), _head(base), target_states(adapted, batch), _head(adapted))

    return summed_by_document(base, dataset, of_targets, batch_tokens=batch_tokens)


def _head(model: nn.Module) -> Tensor:
    weight: Tensor = blocks.head(model).weight.float()
    return weight


def _divergences(base: Tensor, base_head: Tensor, adapted: Tensor, adapted_head: Tensor) -> Tensor:
    """KL of each place, (T,) float32, from hidden states (T, D) and heads (V, D); a chunk of logits at a time."""
    base, adapted, size = base.float(), adapted.float(), chunk_size(base_head)
    parts = []
    for at in range(0, len(base), size):
        expected = (base[at:at + size] @ base_head.T).log_softmax(-1)  # (C, V)
        found = (adapted[at:at + size] @ adapted_head.T).log_softmax(-1)
        parts.append((expected.exp() * (expected - found)).sum(-1))
    return torch.cat(parts) if parts else base.new_zeros(0)
