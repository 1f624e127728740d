"""Tiny random models and documents, shared by the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetrial import catalog
from finetrial.tasks.encoded import TokenDataset

if TYPE_CHECKING:
    from loopback_hub import LoopbackHub
    from partner import Partner

VOCABULARY = 97
POSITIONS = 64
ARCHITECTURES = ("gpt2", "llama")  # decoder-only
ENCODER_DECODERS = ("t5", "t5-gated")  # tied, relu; untied, gated and with more decoder than encoder blocks

TinyModel = Callable[..., Any]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub on this machine, with a cache of its own."""
    from loopback_hub import LoopbackHub

    monkeypatch.setenv("FINETRIAL_CACHE", str(tmp_path / "finetrial"))
    with LoopbackHub() as server:
        server.point_at_it(monkeypatch, tmp_path / "hub")
        yield server


def make_tiny_model(architecture: str, *, seed: int = 0, std: float = 0.1) -> Any:
    """A 2-layer, 32-wide random model. A larger initial spread than usual, so that attention is not almost uniform."""
    import torch
    from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig, MistralConfig

    if architecture in ENCODER_DECODERS:
        return _make_tiny_t5(architecture, seed)
    config: Any
    if architecture == "gpt2":
        config = GPT2Config(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4,
                            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
                            initializer_range=std)
    else:
        made, more = {"llama": (LlamaConfig, {}), "mistral": (MistralConfig, {"sliding_window": None}),
                      "gemma": (GemmaConfig, {"head_dim": 16})}[architecture]
        config = made(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                      num_attention_heads=4, num_key_value_heads=2, bos_token_id=0, eos_token_id=0, initializer_range=std, **more)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def _make_tiny_t5(architecture: str, seed: int) -> Any:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    gated = architecture == "t5-gated"
    options = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3} if gated else {}
    config = T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
                      relative_attention_num_buckets=8, relative_attention_max_distance=32, pad_token_id=0,
                      eos_token_id=1, decoder_start_token_id=0, **options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration._from_config(config, attn_implementation="eager")
        if gated:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 32))
    return model.eval()


def make_pairs(num: int = 20, *, shortest: int = 4, longest: int = 30, seed: int = 0) -> TokenDataset:
    """Random pairs for an encoder-decoder: the target goes on where the source ends, and closes with token 1."""
    generator = np.random.default_rng(seed)
    sources, targets = [], []
    for length in generator.integers(shortest, longest + 1, num):
        row = 2 + (generator.integers(0, VOCABULARY) + 7 * np.arange(length)) % (VOCABULARY - 2)
        cut = generator.integers(1, length - 1)
        sources.append(row[:cut])
        targets.append(np.append(row[cut:], 1))

    def joined(rows: list[Any]) -> tuple[Any, Any]:
        return np.concatenate(rows).astype(np.int32), np.cumsum([0, *map(len, rows)], dtype=np.int64)

    (source_ids, source_offsets), (ids, offsets) = joined(sources), joined(targets)
    return TokenDataset(ids, np.ones(len(ids), dtype=bool), offsets, np.diff(offsets),
                        [f"item-{index}" for index in range(num)], [f"cluster-{index // 2}" for index in range(num)],
                        source_ids, source_offsets)


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run where they are asked for: `pytest -m slow`."""
    if "slow" not in config.getoption("-m"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


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


@pytest.fixture
def tiny_pairs() -> Callable[..., TokenDataset]:
    """Makes tiny data sets for encoder-decoders: `tiny_pairs(20)`."""
    return make_pairs


@pytest.fixture(params=ENCODER_DECODERS)
def encoder_decoder(request: pytest.FixtureRequest) -> str:
    """Each encoder-decoder in turn."""
    return str(request.param)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Each decoder-only architecture in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    """A second process to train with."""
    from partner import Partner

    partner = Partner(tmp_path_factory.mktemp("meetings"))
    yield partner
    partner.close()


@pytest.fixture
def one_thread() -> Any:
    """One torch thread, restored afterwards: bit-for-bit comparisons hold at equal thread counts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
