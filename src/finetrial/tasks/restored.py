"""Whether a tokenizer keeps what it is given: the bytes of a text that its tokens do not give back.

T5's knows no line breaks, no runs of spaces and no braces. No model can write them with it, and bits per byte count
bytes that nobody has predicted.
"""

from __future__ import annotations

from typing import Any

from finetrial.tasks.assemble import Form
from finetrial.tasks.encoded import TokenDataset
from finetrial.tasks.space_mark import written

MOST_ROWS = 200
TOLERATED_BYTES = 1  # of a row: the space with which a text begins is no token's for many


def lost_bytes(dataset: TokenDataset, tokenizer: Any, form: Form) -> tuple[int, int]:
    """(UTF-8 bytes of the first rows' scored text, those of them that decoding its tokens does not bring back)."""
    num_bytes = num_lost = 0
    for row, (start, end) in enumerate(zip(dataset.offsets[:MOST_ROWS], dataset.offsets[1:], strict=False)):
        ids, scored = dataset.ids[start:end], dataset.loss_mask[start:end]
        prompt = ids[:int(scored.argmax())].tolist()
        text = written(tokenizer, prompt, ids[scored].tolist(), form=form)
        wanted = int(dataset.num_bytes[row])
        num_bytes += wanted
        lost = wanted - len(text.encode())
        num_lost += lost if lost > TOLERATED_BYTES else 0
    return num_bytes, num_lost
