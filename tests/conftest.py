"""Tiny random models and documents, shared by the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from finetrial import catalog
from finetrial.tasks.encoded import TokenDataset

VOCABULARY = 97
POSITIONS = 64
ARCHITECTURES = ("gpt2", "llama")

TinyModel = Callable[..., Any]


def make_tiny_model(architecture: str, *, seed: int = 0, std: float = 0.1) -> Any:
    """A 2-layer, 32-wide random model. A larger initial spread than usual, so that attention is not almost uniform."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    config: Any
    if architecture == "gpt2":
        config = GPT2Config(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4,
                            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
                            initializer_range=std)
    else:
        config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=32,
                             intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                             bos_token_id=0, eos_token_id=0, initializer_range=std)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def make_documents(num: int = 20, *, shortest: int = 4, longest: int = 30, seed: int = 0) -> TokenDataset:
    """Random documents whose second part is the target; a token follows from the one before, so there is something
    to learn."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest + 1, num)
    rows, masks = [], []
    for length in lengths:
        first = generator.integers(0, VOCABULARY)
        rows.append((first + 7 * np.arange(length)) % VOCABULARY)
        masks.append(np.arange(length) >= max(1, length // 3))
    return TokenDataset(np.concatenate(rows).astype(np.int32), np.concatenate(masks),
                        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), lengths.astype(np.int64),
                        [f"item-{index}" for index in range(num)], [f"cluster-{index // 2}" for index in range(num)])


@pytest.fixture(autouse=True)
def _catalog_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that a test registers is gone after it."""
    monkeypatch.setattr(catalog, "_user_files", {kind: dict(files) for kind, files in catalog._user_files.items()})


@pytest.fixture
def tiny_model() -> TinyModel:
    """Makes tiny random models: `tiny_model("gpt2")`."""
    return make_tiny_model


@pytest.fixture
def tiny_documents() -> Callable[..., TokenDataset]:
    """Makes tiny data sets: `tiny_documents(20)`."""
    return make_documents


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Each decoder-only architecture in turn."""
    return str(request.param)


@pytest.fixture
def one_thread() -> Any:
    """One torch thread, restored afterwards: bit-for-bit comparisons hold at equal thread counts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
