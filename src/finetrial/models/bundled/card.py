"""The model card of a bundled base, written from its recipe, its data and its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_card(folder: Path, recipe: Mapping[str, Any], data: Mapping[str, Any], gate: Mapping[str, Any],
               samples: Sequence[tuple[str, str]], minutes: float) -> None:
    """Write README.md into the base's folder."""
    packages = ", ".join(f"{package['name']} {package['version']} ({package['license']})"
                         for package in data["packages"])
    shown = "\n\n".join(_sample(number, *pair) for number, pair in enumerate(samples, start=1))
    text = f"""---
license: apache-2.0
library_name: transformers
---
# {recipe['name']}

A tiny GPT-2 made for finetrial's embedded studies: {recipe['layers']} layers, width {recipe['width']},
{recipe['heads']} heads, {recipe['positions']} positions, vocabulary {recipe['vocabulary']:,}. It knows Python source and
the prose of docstrings, and nothing else. It is a subject for trials, not a tool for writing code; results on it are
results on a tiny model.

- Made by `finetrial pretrain {recipe['name']}` (recipe.json) in {minutes:.0f} minutes.
- Trained on {recipe['tokens']:,} tokens ({recipe['tokens'] / data['num_tokens']:.2f} passes over
  {data['num_bytes'] / 1e6:.0f} MB of text, `pretrain` clusters only; manifest.json).
- Never seen: files that share a function, a description or a near-duplicate with train, validation or test files of
  the embedded tasks; any task's prompt format; JavaScript.

## How good it is

On {gate['num_files']} files of unseen `test` clusters ({gate['num_bytes']:,} bytes, windows of {recipe['positions']} tokens that
overlap by half; gate.json):

| model | bits per byte |
|---|---|
| {recipe['name']} | {gate['bits_per_byte']:.3f} |
| 5-gram (interpolated modified Kneser-Ney) on the tokens that {recipe['name']} saw | {gate['five_gram_bits_per_byte']:.3f} |
| the same on all of the pretraining text ({data['num_tokens'] / recipe['tokens']:.1f} times as much) | {gate['five_gram_all_text_bits_per_byte']:.3f} |

That is {100 * gate['below_five_gram']:.0f} % below the 5-gram model of the same tokens, and {gate['nats_per_token']:.3f} nats per token.
The gate (at most 1.45 bits per byte, and at least 25 % below that 5-gram model) is {'passed' if gate['passed'] else 'NOT passed'}.

## Five samples

The first 48 tokens of a held-out file, then what the model wrote (temperature 0.7, first draw, not picked).

{shown}

## Training text

{packages}.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _sample(number: int, prompt: str, continuation: str) -> str:
    body = f"{prompt}⟶{continuation}".replace("```", "` ` `")
    return f"{number}.\n```python\n{body}\n```"
