"""Quantities in words: what metrics, units and costs are called, and the sentence that a comparison of each makes."""

from __future__ import annotations

from collections.abc import Mapping

from finetrial.spec import Contrast
from finetrial.spec.hypothesis import COST, MATCHED, RATE_RATIO, SCORE

KL = "kl-from-base"
METRICS: Mapping[str, str] = {
    "nats-per-token": "loss", "perplexity": "perplexity", "ppl": "perplexity",
    "ppl-document-mean": "perplexity, mean of documents", "bits-per-byte": "bits per byte", "rouge-1": "ROUGE-1",
    "rouge-2": "ROUGE-2", "rouge-l": "ROUGE-L", "rouge-lsum": "ROUGE-Lsum", "chrf": "chrF", "bleu": "BLEU",
    "meteor": "METEOR", "ast-similarity": "AST similarity", "syntax-pass-rate": "syntax pass rate",
    "exact-match": "exact match", "pass-at-k": "pass@k", "continuation-rate": "continuation rate",
    "length-ratio": "length ratio", KL: "KL from the base"}
NEITHER: Mapping[str, str] = {"length-ratio": "1 is right"}  # metrics of which neither direction is better
UNITS: Mapping[str, str] = {"nats-per-token": "nats/token", "nats per token": "nats/token",
                            "nats per target token": "nats/token", "bits-per-byte": "bits/byte",
                            "bits per byte": "bits/byte"}
COSTS: Mapping[str, str] = {"params_total": "parameters in all", "params_trainable": "trainable parameters",
                            "stored_bytes": "stored bytes", "optimizer_bytes": "optimizer bytes",
                            "train_seconds": "training time", "tuning_seconds": "tuning time",
                            "predict_seconds": "prediction time", "train_tokens": "training tokens",
                            "predict_tokens": "test tokens", "tokens_per_second": "speed of training",
                            "predict_tokens_per_second": "speed of prediction", "peak_host_bytes": "peak memory",
                            "peak_device_allocated_bytes": "peak device memory",
                            "peak_device_reserved_bytes": "peak reserved device memory"}
MEASURES: Mapping[str, str] = {"forgetting-max": "forgetting since the best", "average-score": "average score",
                               "backward-transfer": "backward transfer", "forward-transfer": "forward transfer",
                               "drift": "drift on outside texts", "retention": "retention"}

_LESS, _WORSE, _LOWER = ("less", "more"), ("worse", "better"), ("lower", "higher")
_FRAMES: Mapping[str, tuple[tuple[str, str], str]] = {  # below and above 0, and the sentence around the amount
    SCORE: (_WORSE, "on {task}, {left} does {amount} than {right}"),
    "average-score": (_WORSE, "averaged over the tasks learned, {left} does {amount} than {right}"),
    "plasticity": (_LESS, "{left} learns {amount} of {task} than {right}"),
    "forgetting": (_LESS, "{left} forgets {amount} of {task} than {right}"),
    "forgetting-max": (_LESS, "since each was best, {left} forgets {amount} of {task} than {right}"),
    MATCHED: (_LESS, "at equal learning of {learned}, {left} forgets {amount} of {task} than {right}"),
    "forward-transfer": (_LESS, "what was learned before helps {left} {amount} on {task} than {right}"),
    "backward-transfer": (_LESS, "what was learned after helps {left} {amount} on {task} than {right}"),
    "drift": (_LESS, "{left} loses {amount} on texts that it was never trained on than {right}"),
    COST: (_LESS, "in {cost}{on}, {left} needs {amount} than {right}")}


def metric_name(metric: str) -> str:
    """What people call a metric."""
    return METRICS.get(metric.replace("_", "-"), metric)


def unit_name(unit: str) -> str:
    """A unit as it is written beside a number."""
    return UNITS.get(unit, unit)


def metric_words(metric: str, unit: str) -> tuple[str, ...]:
    """Its name and its unit; a name that is its own unit (`chrF`, `bits per byte`) stands alone."""
    name, unit = metric_name(metric), unit_name(unit)
    said = not unit or unit.lower() in name.lower() or unit_name(name) == unit
    return (name,) if said else (name, unit)


def metric_with_unit(metric: str, unit: str) -> str:
    """`loss (nats/token)`."""
    name, *units = metric_words(metric, unit)
    return name + "".join(f" ({unit})" for unit in units)


def metric_on(metric: str, unit: str, task: str) -> str:
    """`loss on docs (nats/token)`, for axes."""
    name, whole = metric_name(metric), metric_with_unit(metric, unit)
    return f"{name} on {task}{whole.removeprefix(name)}"


def quantity_name(contrast: Contrast) -> str:
    """`score on docs`, `forgetting of docs, ORACLE routing`."""
    name = {RATE_RATIO: "best learning rate", COST: COSTS.get(contrast.cost, contrast.cost),
            MATCHED: "forgetting"}.get(contrast.quantity, MEASURES.get(contrast.quantity, contrast.quantity))
    preposition = "of" if contrast.quantity.startswith("forgetting") else "on"
    if contrast.task:
        name += f" {preposition} {contrast.task}"
    if contrast.quantity == MATCHED:
        name += " at equal learning"
    return name + circumstances(contrast)


def circumstances(contrast: Contrast) -> str:
    """The phase and the routing, where they need saying: `, after phase 1, ORACLE routing`."""
    words = [f"after phase {contrast.phase}"] if contrast.phase else []
    words += [f"{contrast.routing.upper()} routing"] if contrast.routing != "latest" else []
    return "".join(f", {word}" for word in words)


def directions(contrast: Contrast) -> tuple[str, str]:
    """What below and above no difference is called."""
    if contrast.quantity == RATE_RATIO:
        return _LOWER
    if contrast.interaction is not None:
        return _LESS
    return _FRAMES.get(contrast.quantity, (_LOWER, ""))[0]


def framed(contrast: Contrast, left: str, right: str, amount: str) -> str:
    """What was measured as a clause: `on docs, A does 0.3 nats/token better than B`."""
    of = contrast.task or "the other tasks"
    where = circumstances(contrast)
    if contrast.interaction is not None:
        return f"in {quantity_name(contrast)}, the step from {right} to {left} gives {amount} than the step from"
    if contrast.quantity not in _FRAMES:
        return f"in {quantity_name(contrast)}, {left} lies {amount} than {right}"
    text = _FRAMES[contrast.quantity][1].format(task=of, learned=contrast.learned, left=left, right=right,
                                                amount=amount, cost=COSTS.get(contrast.cost, contrast.cost),
                                                on=f" on {contrast.task}" if contrast.task else "")
    return f"{where.removeprefix(', ')}: {text}" if where else text
