"""Where the numbers come from: versions, machine, digests, seeds, and the command that repeats the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from finetrial.analysis import numbers
from finetrial.plan.specs import output_metrics
from finetrial.records.results import Results
from finetrial.spec import Study
from finetrial.spec.claims import AS_PUBLISHED

COMMAND = "command"
NAMES = {"python": "Python", "cpu": "processor", "cores": "processor cores", "cores_usable": "cores it may use", "memory_bytes": "memory",
         "git_commit": "git commit", "environment.device": "computed on", "environment.device_name": "accelerator",
         "environment.cpu_capability": "instruction set"}  # of the facts that a run records


def provenance_rows(study: Study, results: Results) -> tuple[tuple[str, str], ...]:
    """Names and values for people, each known fact once, in the order recorded; the study's own facts first."""
    own = [("study", study.name), ("scale", results.scale), ("size", results.size),
           ("seeds", ", ".join(str(seed) for seed in study.seeds)), ("training", _training(study)),
           *((f"outputs of {use.name}", use.decoded) for use in study.tasks if use.evaluate and output_metrics(use))]
    packages = results.provenance.get("packages") or {}
    versions = [("packages", ", ".join(f"{name} {version}" for name, version in packages.items()))] if packages else []
    recorded = {name: value for name, value in results.provenance.items() if name not in (COMMAND, "packages")}
    repeated = {*(name for name, _ in own), *(f"environment.{name}" for name, version in packages.items()
                                              if recorded.get("environment", {}).get(name) == version)}
    if recorded.get("cores_usable") == recorded.get("cores"):
        repeated.add("cores_usable")
    return (*own, *((NAMES.get(name, name.replace("_", " ").replace(".", ", ")), text) for name, text in _flat(recorded)
                    if name not in repeated), *versions)


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
    """Nested keys joined by a dot, and what is known of them."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        elif isinstance(value, int) and name.endswith("_bytes"):
            yield f"{prefix}{name}", numbers.bytes_text(value)
        elif value is not None:
            yield f"{prefix}{name}", str(value)
