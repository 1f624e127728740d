"""Where the numbers come from: versions, machine, digests, seeds, and the command that repeats the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from finetrial.analysis.numbers import UNKNOWN
from finetrial.records.results import Results
from finetrial.spec import Study
from finetrial.spec.claims import AS_PUBLISHED

COMMAND = "command"


def provenance_rows(study: Study, results: Results) -> tuple[tuple[str, str], ...]:
    """Names and values, nested keys joined by a dot, in the order recorded; the study's own facts first."""
    own = [("study", study.name), ("scale", results.scale), ("size", results.size),
           ("seeds", ", ".join(str(seed) for seed in study.seeds)), ("training", _training(study))]
    recorded = {name: value for name, value in results.provenance.items() if name != COMMAND}
    return (*own, *(row for row in _flat(recorded) if row[0] not in {name for name, _ in own}))


def command(study: Study, results: Results) -> str:
    """The recorded command; else the one that runs the `study.yaml` that lies beside every report."""
    recorded = results.provenance.get(COMMAND)
    if recorded:
        return recorded if isinstance(recorded, str) else " ".join(str(word) for word in recorded)
    if study.scale == "custom":
        return "finetrial run study.yaml"
    if study.name.endswith(AS_PUBLISHED):
        return f"finetrial run {study.name.removesuffix(AS_PUBLISHED)} --as-published"
    return f"finetrial run {study.name} --scale {results.scale} --size {results.size}"


def _training(study: Study) -> str:
    training = study.training
    return (f"{training.budget}, {training.batch_sequences} \N{MULTIPLICATION SIGN} {training.sequence_length} tokens "
            f"a step, {training.optimizer}, {training.schedule}, {training.precision}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{name}", UNKNOWN if value is None else str(value)
