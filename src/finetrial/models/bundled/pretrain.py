"""`finetrial pretrain`: make a bundled base from the embedded corpus, by the recipe written here.

The base sees text of `pretrain` clusters only, never in a task's prompt format, and no JavaScript. What is written
beside the weights says how they came about: `recipe.json`, `manifest.json` (packages, digests, counts), `log.jsonl`
(loss by step), `gate.json` (bits per byte on files of unseen clusters, against a 5-gram model on the same text) and
README.md, the model card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrial.errors import UserError, unknown
from finetrial.models.bundled.card import write_card

SAMPLES = 5
MAX_BITS_PER_BYTE = 1.45
MIN_BELOW_FIVE_GRAM = 0.25


@dataclass(frozen=True)
class Recipe:
    """Architecture and training of one base. Widths in units, lengths in tokens."""

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
    seed: int = 0


RECIPES = {recipe.name: recipe for recipe in (
    Recipe("tiny-gpt", layers=4, width=256, heads=4, positions=512, vocabulary=8192, learning_rate=0.006,
           batch_sequences=16, micro_batch=8, tokens=11_000_000, weight_decay=0.1, warmup=0.03, final=0.02),
)}


@dataclass(frozen=True)
class _Windows:
    """Windows of held-out files, as the loss reads documents: flat ids, which of them are scored, offsets."""

    ids: Any  # int32 [total]
    loss_mask: Any  # bool [total]
    offsets: Any  # int64 [n + 1]


def pretrain(name: str, output: Path, *, threads: int = 2, device: str = "cpu",
             say: Callable[[str], None] = print) -> Mapping[str, Any]:
    """Train the base `name` into the folder `output`; return the gate's figures. Resumes if it was interrupted.

    The tokenizer is taken from the package where it is bundled, so that a base can be made again from its recipe.
    """
    import torch

    if name not in RECIPES:
        raise UserError(unknown("recipe", name, RECIPES))
    torch.set_num_threads(threads)
    recipe = RECIPES[name]
    work = output / "work"
    work.mkdir(parents=True, exist_ok=True)
    facts = _data(work, say)
    if (output / "model.safetensors").is_file():
        say(f"{output} holds weights already: they are judged, not trained again")
    else:
        _train(recipe, output, work, device, say)
    model, tokenizer = _load(output)
    gate = _gate(recipe, model, work, say)
    _publish(recipe, output, work, facts, gate, samples(model, tokenizer, work))
    return gate


def _load(output: Path) -> tuple[Any, Any]:
    from finetrial.models.load import load_base

    loaded = load_base(output)
    return loaded.model, loaded.tokenizer


def _publish(recipe: Recipe, output: Path, work: Path, facts: Mapping[str, Any], gate: Mapping[str, Any],
             shown: list[tuple[str, str]]) -> None:
    """Everything that is committed beside the weights."""
    for part in ("manifest.json", "log.jsonl"):
        shutil.copyfile(work / part, output / part)
    _write(output / "recipe.json", asdict(recipe))
    _write(output / "gate.json", gate)
    minutes = json.loads((work / "trained.json").read_text())["seconds"] / 60
    write_card(output, asdict(recipe), facts, gate, shown, minutes)


def _data(work: Path, say: Callable[[str], None]) -> Mapping[str, Any]:
    from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER, write_pretrain_data

    if not (work / "manifest.json").is_file():
        say("mining and tokenising the pretraining text")
        write_pretrain_data(work, TOKENIZER_FOLDER, train=not (TOKENIZER_FOLDER / "tokenizer.json").is_file())
    facts: dict[str, Any] = json.loads((work / "manifest.json").read_text())
    say(f"{facts['num_tokens']:,} tokens of {facts['num_bytes'] / 1e6:.0f} MB in {facts['num_documents']:,} documents")
    return facts


def _train(recipe: Recipe, output: Path, work: Path, device: str, say: Callable[[str], None]) -> None:
    """Train from a random start; save bf16 weights and the tokenizer."""
    import torch
    from transformers import AutoTokenizer

    from finetrial.methods.full import Full
    from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
    from finetrial.streams import Streams
    from finetrial.train.config import Budget, Training
    from finetrial.train.flat import FlatDataset
    from finetrial.train.loop import Checkpoints, train

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    streams = Streams(recipe.seed)
    model = _random_model(recipe, tokenizer.eos_token_id, streams)
    config = Training(budget=Budget(amount=recipe.tokens, unit="tokens"), sequence_length=recipe.positions,
                      batch_sequences=recipe.batch_sequences, optimizer="muon", weight_decay=recipe.weight_decay,
                      warmup=recipe.warmup, schedule="cosine", final=recipe.final, evaluations=20, beta2=0.95)
    data = FlatDataset.open(work / "train.npy", end_of_text=tokenizer.eos_token_id)
    validation = _windows(work / "val.npz", recipe.positions, limit_tokens=60_000)
    with (work / "log.jsonl").open("a", encoding="utf-8") as lines:
        result = train(model, [Full().attach(model, streams, "base")], data, config, recipe.learning_rate, streams,
                       device=device, micro_batch=recipe.micro_batch, on_metrics=_logger(lines, say),
                       validate=lambda step: _validated(model, validation, lines, step, say),
                       checkpoints=Checkpoints(work / "checkpoint", every_seconds=300))
    _write(work / "trained.json", {"seconds": round(result.seconds), "tokens": result.tokens})
    if output.resolve() != TOKENIZER_FOLDER.resolve():
        tokenizer.save_pretrained(output)
    model.to("cpu").to(torch.bfloat16).save_pretrained(output)


def _random_model(recipe: Recipe, end_of_text: int, streams: Any) -> Any:
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(vocab_size=recipe.vocabulary, n_positions=recipe.positions, n_embd=recipe.width,
                        n_layer=recipe.layers, n_head=recipe.heads, activation_function="gelu_pytorch_tanh",
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end_of_text,
                        eos_token_id=end_of_text, pad_token_id=end_of_text)
    with streams.torch_fork("init"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def _logger(lines: Any, say: Callable[[str], None]) -> Callable[[Mapping[str, Any]], None]:
    def note(metrics: Mapping[str, Any]) -> None:
        if metrics["step"] % 10 == 0:
            lines.write(json.dumps({key: round(value, 5) if isinstance(value, float) else value
                                    for key, value in metrics.items()}) + "\n")
            lines.flush()
        if metrics["step"] % 50 == 0:
            say(f"step {metrics['step']:5d}  loss {metrics['loss']:.3f}  {metrics['tokens'] / 1e6:.1f}M tokens  "
                f"{metrics['seconds'] / 60:.1f} min")
    return note


def _validated(model: Any, windows: Any, lines: Any, step: int, say: Callable[[str], None]) -> float:
    from finetrial.train.loss import item_losses

    sums, counts = item_losses(model, windows)
    value = float(sums.sum() / counts.sum())
    lines.write(json.dumps({"step": step, "validation_nats_per_token": round(value, 5)}) + "\n")
    say(f"step {step:5d}  validation {value:.4f} nats/token")
    return value


def _windows(path: Path, length: int, *, limit_tokens: int) -> _Windows:
    """Held-out files cut into windows of `length` tokens that overlap by half: every scored token but a file's first
    ones has at least half a window of context. Files are taken in an order fixed by their paths' digests."""
    files = _held_out(path, limit_tokens)
    ids: list[Any] = []
    masks: list[Any] = []
    stride = length // 2
    for _, tokens, _ in files:
        for start in range(0, max(1, len(tokens) - stride), stride):
            part = tokens[start:start + length]
            mask = np.ones(len(part), bool)
            mask[:1 if start == 0 else stride] = False
            ids.append(part)
            masks.append(mask)
    offsets = np.cumsum([0, *(len(part) for part in ids)], dtype=np.int64)
    return _Windows(np.concatenate(ids).astype(np.int32), np.concatenate(masks), offsets)


def _held_out(path: Path, limit_tokens: int) -> list[tuple[str, Any, int]]:
    """(path, token ids without the end token, bytes) of held-out files, up to `limit_tokens`."""
    from finetrial.fingerprint import key_of

    saved = np.load(path)
    order = sorted(range(len(saved["paths"])), key=lambda index: key_of(str(saved["paths"][index])))
    chosen: list[tuple[str, Any, int]] = []
    total = 0
    for index in order:
        tokens = saved["ids"][saved["offsets"][index]:saved["offsets"][index + 1] - 1]
        if total + len(tokens) > limit_tokens and chosen:
            continue
        chosen.append((str(saved["paths"][index]), tokens.astype(np.int64), int(saved["num_bytes"][index])))
        total += len(tokens)
        if total > 0.99 * limit_tokens:
            break
    return chosen


def _gate(recipe: Recipe, model: Any, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Bits per byte on files of unseen test clusters: the base, a 5-gram model trained on the tokens that the base
    saw, and one trained on the whole of the pretraining text.

    Each file's first token is scored by none; all others are, by all three, and divided by the files' bytes.
    """
    from finetrial.models.bundled import ngram
    from finetrial.train.loss import item_losses

    files = _held_out(work / "test.npz", 300_000)
    num_bytes = sum(size for _, _, size in files)
    sums, counts = item_losses(model, _windows(work / "test.npz", recipe.positions, limit_tokens=300_000))
    assert int(counts.sum()) == sum(len(tokens) - 1 for _, tokens, _ in files)
    ours = float(sums.sum()) / np.log(2) / num_bytes
    text = np.load(work / "train.npy")
    bits = {}
    for what, ids in (("same_tokens", _seen(recipe, text)), ("all_text", text)):
        say(f"training a 5-gram model on {len(ids):,} tokens")
        reference = ngram.train(ids)
        total = sum(float(np.sum(ngram.bits(reference, tokens)[1:])) for _, tokens, _ in files)
        bits[what] = total / num_bytes
    gate = {"num_files": len(files), "num_bytes": num_bytes, "num_tokens": int(counts.sum()),
            "bits_per_byte": round(ours, 4), "nats_per_token": round(float(sums.sum() / counts.sum()), 4),
            "five_gram_bits_per_byte": round(bits["same_tokens"], 4),
            "five_gram_all_text_bits_per_byte": round(bits["all_text"], 4),
            "below_five_gram": round(1 - ours / bits["same_tokens"], 4),
            "passed": bool(ours <= MAX_BITS_PER_BYTE and ours <= (1 - MIN_BELOW_FIVE_GRAM) * bits["same_tokens"])}
    say(json.dumps(gate))
    return gate


def _seen(recipe: Recipe, text: Any) -> Any:
    """The tokens that training read in its first epoch, rows in the text's order."""
    from finetrial.streams import Streams

    length = recipe.positions
    num_rows = (len(text) - 1) // length
    order = Streams(recipe.seed).generator("order/0").permutation(num_rows)
    rows = np.sort(order[:-(-recipe.tokens // length)])
    return text[(rows[:, None] * length + np.arange(length)).ravel()]


def samples(model: Any, tokenizer: Any, work: Path) -> list[tuple[str, str]]:
    """(prompt, continuation) for the first lines of five held-out files, sampled at temperature 0.7 from a fixed seed."""
    import torch

    from finetrial.streams import Streams

    found = []
    for number, (_, tokens, _) in enumerate(_held_out(work / "test.npz", 100_000)[:SAMPLES]):
        prompt = torch.from_numpy(tokens[:48])[None]
        with Streams(0).torch_fork(f"sample/{number}"):
            output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=80, do_sample=True,
                                    temperature=0.7, top_k=0)
        found.append((tokenizer.decode(prompt[0]), tokenizer.decode(output[0, prompt.shape[1]:])))
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
