"""Writes losses.json, the golden loss curves: `python tests/golden/make.py`.

A change that should not alter numbers must reproduce them to 1e-4. Write them anew only for a change that should, and
say in the change log by how much they moved.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "losses.json"
STEPS = 12
CASES = [(architecture, method, optimizer) for architecture in ("gpt2", "llama")
         for method, optimizer in (("full", "adamw"), ("full", "muon"), ("lora", "adamw"))]


def name_of(case: tuple[str, str, str]) -> str:
    """The name of a curve in the file."""
    return " ".join(case)


def curve(case: tuple[str, str, str]) -> list[float]:
    """The training losses of one case, in nats per target token."""
    from finetrial.methods.full import Full
    from finetrial.methods.lora import Lora
    from finetrial.streams import Streams
    from finetrial.train.config import Training
    from finetrial.train.loop import train

    tiny = _tiny()
    architecture, method, optimizer = case
    model, streams = tiny.make_tiny_model(architecture), Streams(0)
    attached: Any = Full() if method == "full" else Lora(rank=4, targets="all-linear")
    config = Training.model_validate({"budget": f"{STEPS} steps", "sequence_length": 48, "batch_sequences": 4,
                                      "optimizer": optimizer, "weight_decay": 0.01})
    losses: list[float] = []
    train(model, [attached.attach(model, streams, "base")], tiny.make_documents(60), config, 1e-2, streams,
          on_metrics=lambda metrics: losses.append(metrics["loss"]))
    return losses


def _tiny() -> Any:
    spec = importlib.util.spec_from_file_location("tiny_models", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    FILE.write_text(json.dumps({name_of(case): [round(loss, 6) for loss in curve(case)] for case in CASES}, indent=1)
                    + "\n")
