"""`finetrial pretrain`: make a bundled base from the embedded corpus, by its recipe (`gpt`, `t5`).

The base sees text of `pretrain` clusters only, never in a task's prompt format, and no JavaScript. What is written
beside the weights says how they came about: `recipe.json`, `manifest.json` (packages, digests, counts), `log.jsonl`
(loss by step), `gate.json` (how it does on files of unseen clusters, beside a 5-gram model) and README.md, the model
card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetrial.errors import UserError, unknown
from finetrial.fingerprint import key_of
from finetrial.models.bundled.card import write_card
from finetrial.models.bundled.gpt import TINY_GPT
from finetrial.models.bundled.recipe import Recipe
from finetrial.models.bundled.t5 import TINY_T5
from finetrial.run.machine import compute_with

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (TINY_GPT, TINY_T5)}


def pretrain(name: str, output: Path, *, threads: int = 2, device: str = "cpu",
             say: Callable[[str], None] = print) -> Mapping[str, Any]:
    """Train the base `name` into the folder `output`; return the gate's figures. Resumes if it was interrupted.

    The tokenizer is taken from the package where it is bundled, so that a base can be made again from its recipe.
    """
    if name not in RECIPES:
        raise UserError(unknown("recipe", name, RECIPES))
    compute_with(threads)
    recipe = RECIPES[name]
    work = output / "work"
    work.mkdir(parents=True, exist_ok=True)
    facts = _data(work, say)
    if (output / "model.safetensors").is_file():
        say(f"{output} holds weights already: they are judged, not trained again")
    else:
        _train(recipe, output, work, device, say)
    model, tokenizer = _load(output)
    gate = recipe.gate(model, tokenizer, work, say)
    _publish(recipe, output, work, facts, gate, recipe.samples(model, tokenizer, work))
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
    _write(output / "recipe.json", asdict(recipe))  # type: ignore[call-overload]
    _write(output / "gate.json", gate)
    minutes = json.loads((work / "trained.json").read_text())["seconds"] / 60
    write_card(output, recipe.name, recipe.card(facts, gate), facts, shown, minutes)


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

    from finetrial.methods.full import Full
    from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
    from finetrial.streams import Streams
    from finetrial.train.checkpoint import Checkpoints
    from finetrial.train.loop import train

    tokenizer = recipe.tokenizer()
    streams = Streams(recipe.seed)
    model = recipe.random_model(tokenizer, streams)
    validation = recipe.validation(work, tokenizer)
    with (work / "log.jsonl").open("a", encoding="utf-8") as lines:
        result = train(model, [Full().attach(model, streams, "base")], recipe.text(work, tokenizer), recipe.training(),
                       recipe.learning_rate, streams, device=device, micro_batch=recipe.micro_batch,
                       on_metrics=_logger(lines, say),
                       validate=lambda step: _validated(model, validation, lines, step, say),
                       checkpoints=Checkpoints(work / f"checkpoint-{key_of(asdict(recipe))[:8]}", every_seconds=300))  # type: ignore[call-overload]
    _write(work / "trained.json", {"seconds": round(result.seconds), "tokens": result.tokens,
                                   "target_tokens": result.target_tokens})
    if output.resolve() != TOKENIZER_FOLDER.resolve():
        tokenizer.save_pretrained(output)
        _forget_origin(output / "tokenizer_config.json")
    model.to("cpu").to(torch.bfloat16).save_pretrained(output)


def _forget_origin(path: Path) -> None:
    """What the library notes about where a tokenizer was loaded from is no part of the base."""
    written = json.loads(path.read_text(encoding="utf-8"))
    _write(path, {key: value for key, value in written.items() if key not in ("is_local", "local_files_only")})


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


def _validated(model: Any, validation: Any, lines: Any, step: int, say: Callable[[str], None]) -> float:
    from finetrial.train.loss import item_losses

    sums, counts = item_losses(model, validation)
    value = float(sums.sum() / counts.sum())
    lines.write(json.dumps({"step": step, "validation_nats_per_token": round(value, 5)}) + "\n")
    say(f"step {step:5d}  validation {value:.4f} nats/token")
    return value


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
