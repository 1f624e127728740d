"""The model card of a bundled base, written from its recipe, its data and its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetrial.models.bundled.recipe import CardText


def write_card(folder: Path, name: str, text: CardText, facts: Mapping[str, Any], samples: Sequence[tuple[str, str]],
               minutes: float) -> None:
    """Write README.md into the base's folder."""
    packages = ", ".join(f"{package['name']} {package['version']} ({package['license']})"
                         for package in facts["packages"])
    shown = "\n\n".join(_sample(number, *pair) for number, pair in enumerate(samples, start=1))
    (folder / "README.md").write_text(f"""---
license: apache-2.0
library_name: transformers
---
# {name}

{text.opening}

- Made by `finetrial pretrain {name}` (recipe.json) in {minutes:.0f} minutes.
- Trained on {text.seen}
- Never seen: files that share a function, a description or a near-duplicate with train, validation or test files of
  the embedded tasks; any task's prompt format; JavaScript.

## How good it is

{text.quality}

## Five samples

{text.sampling}

{shown}

## Training text

{packages}.
""", encoding="utf-8")


def _sample(number: int, prompt: str, continuation: str) -> str:
    body = f"{prompt}⟶{continuation}".replace("```", "` ` `")
    return f"{number}.\n```python\n{body}\n```"
