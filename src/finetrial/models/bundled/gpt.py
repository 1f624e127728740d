"""The recipe of a GPT-2: plain next-token prediction over Python source and prose, judged in bits per byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetrial.models.bundled import ngram
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER, held_out_files
from finetrial.models.bundled.recipe import SAMPLES, CardText, Recipe
from finetrial.streams import Streams
from finetrial.train.config import Budget, Precision, Training
from finetrial.train.flat import FlatDataset
from finetrial.train.loss import item_losses

MAX_BITS_PER_BYTE = 1.45
MIN_BELOW_FIVE_GRAM = 0.25
VALIDATION_TOKENS = 60_000
GATE_TOKENS = 300_000


@dataclass(frozen=True)
class GptRecipe(Recipe):
    """Widths in units, lengths in tokens."""

    name: str
    layers: int
    width: int
    heads: int
    positions: int
    vocabulary: int
    learning_rate: float
    batch_sequences: int
    micro_batch: int
    tokens: int
    weight_decay: float
    warmup: float
    final: float
    precision: Precision
    seed: int = 0

    def tokenizer(self) -> Any:
        """The bundled tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)

    def random_model(self, tokenizer: Any, streams: Streams) -> Any:
        """GPT-2 of the usual initialisation, without dropout."""
        from transformers import AutoModelForCausalLM, GPT2Config

        end_of_text = tokenizer.eos_token_id
        config = GPT2Config(vocab_size=self.vocabulary, n_positions=self.positions, n_embd=self.width,
                            n_layer=self.layers, n_head=self.heads, activation_function="gelu_pytorch_tanh",
                            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end_of_text,
                            eos_token_id=end_of_text, pad_token_id=end_of_text)
        with streams.torch_fork("init"):
            return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")

    def training(self) -> Training:
        """Muon, cosine."""
        return Training(budget=Budget(amount=self.tokens, unit="tokens"), sequence_length=self.positions,
                        batch_sequences=self.batch_sequences, optimizer="muon", weight_decay=self.weight_decay,
                        warmup=self.warmup, schedule="cosine", final=self.final, evaluations=20, beta2=0.95,
                        precision=self.precision)

    def text(self, work: Path, tokenizer: Any) -> FlatDataset:
        """Rows read straight through."""
        return FlatDataset.open(work / "train.npy", end_of_text=tokenizer.eos_token_id)

    def validation(self, work: Path, tokenizer: Any) -> Windows:
        """Windows of whole files."""
        return windows(work / "val.npz", self.positions, limit_tokens=VALIDATION_TOKENS)

    def gate(self, model: Any, tokenizer: Any, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """Bits per byte on files of unseen test clusters: the base, a 5-gram model trained on the tokens that the base
        saw, and one trained on the whole of the pretraining text.

        Each file's first token is scored by none; all others are, by all three, and divided by the files' bytes.
        """
        files = held_out_files(work / "test.npz", GATE_TOKENS)
        num_bytes = sum(size for _, _, size in files)
        sums, counts = item_losses(model, windows(work / "test.npz", self.positions, limit_tokens=GATE_TOKENS))
        assert int(counts.sum()) == sum(len(tokens) - 1 for _, tokens, _ in files)
        ours = float(sums.sum()) / np.log(2) / num_bytes
        text = np.load(work / "train.npy")
        seen = self._seen(text)
        bits = {"all_text": self._five_gram_bits(text, files, say) / num_bytes}
        bits["same_tokens"] = bits["all_text"] if len(seen) == len(text) else (
            self._five_gram_bits(seen, files, say) / num_bytes)
        gate = {"num_files": len(files), "num_bytes": num_bytes, "num_tokens": int(counts.sum()),
                "bits_per_byte": round(ours, 4), "nats_per_token": round(float(sums.sum() / counts.sum()), 4),
                "five_gram_bits_per_byte": round(bits["same_tokens"], 4),
                "five_gram_all_text_bits_per_byte": round(bits["all_text"], 4),
                "below_five_gram": round(1 - ours / bits["same_tokens"], 4),
                "passed": bool(ours <= MAX_BITS_PER_BYTE and ours <= (1 - MIN_BELOW_FIVE_GRAM) * bits["same_tokens"])}
        say(json.dumps(gate))
        return gate

    def samples(self, model: Any, tokenizer: Any, work: Path) -> list[tuple[str, str]]:
        """(prompt, continuation) for the first lines of held-out files, sampled at temperature 0.7."""
        found = []
        for number, (_, tokens, _) in enumerate(held_out_files(work / "test.npz", 100_000)[:SAMPLES]):
            prompt = torch.from_numpy(tokens[:48])[None]
            with Streams(0).torch_fork(f"sample/{number}"):
                output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=80,
                                        do_sample=True, temperature=0.7, top_k=0)
            found.append((tokenizer.decode(prompt[0]), tokenizer.decode(output[0, prompt.shape[1]:])))
        return found

    def card(self, facts: Mapping[str, Any], gate: Mapping[str, Any]) -> CardText:
        """The base beside its 5-gram models; one, where it has read all of the text."""
        whole = (f"\n| the same on all of the pretraining text | {gate['five_gram_all_text_bits_per_byte']:.3f} |"
                 if gate["five_gram_all_text_bits_per_byte"] != gate["five_gram_bits_per_byte"] else "")
        return CardText(
            opening=f"""A tiny GPT-2 made for finetrial's embedded studies: {self.layers} layers, width {self.width},
{self.heads} heads, {self.positions} positions, vocabulary {self.vocabulary:,}. It knows Python source and
the prose of docstrings, and nothing else. It is a subject for trials, not a tool for writing code; results on it are
results on a tiny model.""",
            seen=f"""{self.tokens:,} tokens ({self.tokens / facts['num_tokens']:.2f} passes over
  {facts['num_bytes'] / 1e6:.0f} MB of text, `pretrain` clusters only; manifest.json).""",
            quality=f"""\
On {gate['num_files']} files of unseen `test` clusters ({gate['num_bytes']:,} bytes, windows of {self.positions} tokens that
overlap by half; gate.json):

| model | bits per byte |
|---|---|
| {self.name} | {gate['bits_per_byte']:.3f} |
| 5-gram (interpolated modified Kneser-Ney) on the tokens that {self.name} saw | {gate['five_gram_bits_per_byte']:.3f} |{whole}

That is {100 * gate['below_five_gram']:.1f} % below the 5-gram model of the same tokens, and {gate['nats_per_token']:.3f} nats per token.
The gate (at most {MAX_BITS_PER_BYTE} bits per byte, and at least {100 * MIN_BELOW_FIVE_GRAM:.0f} % below that 5-gram model) is {
    'passed' if gate['passed'] else 'NOT passed'}.""",
            sampling="The first 48 tokens of a held-out file, then what the model wrote (temperature 0.7, first draw, "
                     "not picked).")

    @staticmethod
    def _five_gram_bits(text: Any, files: Sequence[tuple[Any, Any, int]], say: Callable[[str], None]) -> float:
        """The bits of all files but their first tokens, by a 5-gram model of `text`."""
        say(f"training a 5-gram model on {len(text):,} tokens")
        reference = ngram.train(text)
        return sum(float(np.sum(ngram.bits(reference, tokens)[1:])) for _, tokens, _ in files)

    def _seen(self, text: Any) -> Any:
        """The tokens that training read, each once, in the text's order: all of it after a whole epoch."""
        length = self.positions
        num_rows = (len(text) - 1) // length
        if self.tokens >= num_rows * length:
            return text
        order = Streams(self.seed).generator("order/0").permutation(num_rows)
        rows = np.sort(order[:-(-self.tokens // length)])
        return text[(rows[:, None] * length + np.arange(length)).ravel()]


@dataclass(frozen=True)
class Windows:
    """Windows of held-out files, as the loss reads documents: flat ids, which of them are scored, offsets."""

    ids: Any  # int32 [total]
    loss_mask: Any  # bool [total]
    offsets: Any  # int64 [n + 1]


def windows(path: Path, length: int, *, limit_tokens: int) -> Windows:
    """Held-out files cut into windows of `length` tokens that overlap by half: every scored token but a file's first
    ones has at least half a window of context."""
    ids: list[Any] = []
    masks: list[Any] = []
    stride = length // 2
    for _, tokens, _ in held_out_files(path, limit_tokens):
        for start in range(0, max(1, len(tokens) - stride), stride):
            part = tokens[start:start + length]
            mask = np.ones(len(part), bool)
            mask[:1 if start == 0 else stride] = False
            ids.append(part)
            masks.append(mask)
    offsets = np.cumsum([0, *(len(part) for part in ids)], dtype=np.int64)
    return Windows(np.concatenate(ids).astype(np.int32), np.concatenate(masks), offsets)


TINY_GPT = GptRecipe("tiny-gpt", layers=4, width=256, heads=4, positions=512, vocabulary=8192, learning_rate=0.008,
                     batch_sequences=16, micro_batch=8, tokens=36_000_000, weight_decay=0.1, warmup=0.03, final=0.02,
                     precision="bf16")
