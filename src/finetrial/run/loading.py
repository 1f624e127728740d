"""How plain peft and transformers load what a run trained, and what a copy of it needs for that beside its weights.

A folder of weights is a whole model (`config.json`), an adapter (`adapter_config.json`), or a part that only its method
can put into the base (`recipe.json`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from finetrial.plan.bases import ResolvedBase
from finetrial.run.run_file import RESULTS_FILE
from finetrial.spec.uses import Base

FULL_MODEL, ADAPTER, PART = "config.json", "adapter_config.json", "recipe.json"


@dataclass(frozen=True)
class Place:
    """Where one set of trained weights lies, by the file that says what they are."""

    folder: Path
    kind: str  # FULL_MODEL, ADAPTER or PART


def places(folder: Path) -> tuple[Place, ...]:
    """Every set of weights below a folder, by path."""
    found = {path.parent: kind for kind in (PART, FULL_MODEL, ADAPTER) for path in folder.rglob(kind)}
    return tuple(Place(path, kind) for path, kind in sorted(found.items()))


def source_of(base: ResolvedBase, written: Base) -> str:
    """What `from_pretrained` takes for a base: its repository on the hub, or its folder."""
    return written.source if base.provenance else str(base.folder)


def code(place: Place, base: ResolvedBase, *, source: str, shown: str) -> str:
    """The Python expression that loads the weights, alone on their base; '' for a part. `shown`: the folder as it is written."""
    model = "AutoModelForSeq2SeqLM" if base.is_encoder_decoder else "AutoModelForCausalLM"
    return {ADAPTER: f'PeftModel.from_pretrained({model}.from_pretrained("{source}"), "{shown}")',
            FULL_MODEL: f'{model}.from_pretrained("{shown}")', PART: ""}[place.kind]


def complete(copy: Path, base: ResolvedBase, source: str) -> None:
    """Give a copy of a run's weights what they lack beside their base: whole models its tokenizer; an adapter that is alone its
    name. Files of the store must not be given: they are changed in place.

    Raises ModelError where the base's tokenizer cannot be read.
    """
    from finetrial.models.load import load_tokenizer

    found = places(copy)
    for place in found:
        if place.kind == FULL_MODEL:
            load_tokenizer(base.folder).save_pretrained(place.folder)
        elif place.kind == ADAPTER and len(found) == 1:  # beside others it is trained on more than the base
            file = place.folder / ADAPTER
            config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": source}
            file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def rate_of(run: Path, *, base: str, arm: str, sequence: str, phase: int, seed: int) -> float | None:
    """The learning rate that validation chose there, as the run's results have it; None where they do not say."""
    try:
        tuning = json.loads((run / RESULTS_FILE).read_text(encoding="utf-8"))["tuning"]
    except (OSError, ValueError, KeyError):
        return None
    wanted = {"base": base, "arm": arm, "sequence": sequence, "phase": phase, "seed": seed}
    chosen: list[float | None] = [row["chosen"] for row in tuning if wanted.items() <= row.items()]
    return chosen[0] if chosen else None
