"""The inputs that both sides share: a model folder, an adapter to start from, and encoded rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from finetrial.errors import UserError
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
from finetrial.streams import Streams
from finetrial.tasks.encoded import TokenDataset

SEED = 0
SLOT = "trained"
LORA_RANK = 8
SHAPES = {"tiny": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 512, "vocab_size": 8192,
                   "activation_function": "gelu_pytorch_tanh"},
          "gpt2": {}}  # GPT2Config's defaults are GPT-2's: 12 layers of 768, 12 heads, 50,257 tokens, 1,024 positions


def bundled_model() -> Path | None:
    """The folder of tiny-gpt, if its weights are there."""
    return TOKENIZER_FOLDER if (TOKENIZER_FOLDER / "model.safetensors").is_file() else None


def random_model(shape: str, folder: Path) -> Path:
    """Write a GPT-2 of random weights without dropout, with the bundled tokenizer, into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(**SHAPES[shape], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0,
                        eos_token_id=0, pad_token_id=0)
    with Streams(SEED).torch_fork("init"):
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER_FOLDER / name, folder / name)
    return folder


def write_adapter(model: Path, folder: Path) -> Path:
    """The LoRA adapter that finetrial starts from under `SEED`, saved for TRL."""
    from finetrial.methods.lora import Lora
    from finetrial.models.load import load_base

    Lora(rank=LORA_RANK).attach(load_base(model).model, Streams(SEED), SLOT).save(folder)
    return folder


def pydoc_rows(model: Path, num_rows: int, max_tokens: int) -> TokenDataset:
    """Training rows of the task pydoc-chat. Raises UserError if the corpus cannot be read or fetched."""
    from finetrial.models.load import load_tokenizer
    from finetrial.stages.data import stable_order
    from finetrial.tasks.encode import encode_examples
    from finetrial.tasks.pydoc_chat import PydocChat

    task = PydocChat()
    rows = stable_order(task.load().split("train"))
    return encode_examples(task, rows, load_tokenizer(model), max_tokens, limit=num_rows)[0]


def synthetic_rows(num_rows: int, max_tokens: int, vocabulary: int = 8192) -> TokenDataset:
    """Rows of random tokens with the lengths of pydoc-chat: 60 tokens and more, a third of them at the limit."""
    draw = Streams(SEED).generator("rows")
    lengths = np.minimum(max_tokens, 60 + draw.gamma(2.0, max_tokens / 4, num_rows).astype(np.int64))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    replies = np.minimum(lengths - 30, draw.integers(8, 90, num_rows))
    ids = (draw.zipf(1.3, int(offsets[-1])) % (vocabulary - 1) + 1).astype(np.int32)
    mask = np.zeros(len(ids), np.bool_)
    for end, reply in zip(offsets[1:], replies, strict=True):
        mask[end - reply:end] = True
    names = [str(row) for row in range(num_rows)]
    return TokenDataset(ids, mask, offsets, np.zeros(num_rows, np.int64), names, names)


def rows_for(model: Path, num_rows: int, max_tokens: int) -> tuple[TokenDataset, str]:
    """Rows of pydoc-chat, else synthetic ones, with a line that says which."""
    try:
        rows = pydoc_rows(model, num_rows, max_tokens)
    except UserError as error:
        reason = f"synthetic rows of like lengths, as pydoc-chat could not be read: {error}"
        return synthetic_rows(num_rows, max_tokens), reason
    return rows, "training rows of the task pydoc-chat"


def epoch_order(num_rows: int) -> list[int]:
    """The order in which finetrial's first epoch takes the rows under `SEED`."""
    return [int(row) for row in Streams(SEED).generator("order/0").permutation(num_rows)]
