"""Contrasts in words: the key that tells one from another, and what it claims. What came out is told by the report."""

from __future__ import annotations

from collections.abc import Callable

from finetrial.analysis.numbers import given
from finetrial.spec.hypothesis import COST, MATCHED, RATE_RATIO, SCORE, Contrast, Side

Label = Callable[[str], str]

_COMPARED = {SCORE: ("scores better than {right}{on}", "scores worse than {right}{on}"),
             "forgetting": ("forgets more{of} than {right}", "forgets less{of} than {right}"),
             MATCHED: ("forgets more{of} than {right} once both have learned as much of {learned}",
                       "forgets less{of} than {right} once both have learned as much of {learned}"),
             RATE_RATIO: ("has a higher best learning rate than {right}",
                          "has a lower best learning rate than {right}"),
             COST: ("costs more {cost}{on} than {right}", "costs less {cost}{on} than {right}")}
_OTHER = ("has more {quantity}{on} than {right}", "has less {quantity}{on} than {right}")


def key(contrast: Contrast, metric: str) -> str:
    """`full - lora-r8: score on pydoc-chat (nats-per-token)`: by names, the same for every run of the study."""
    left, right = (side_text(contrast, side, str) for side in contrast.sides[:2])
    if contrast.quantity == RATE_RATIO:
        return f"{left} / {right}: best learning rate"
    what = contrast.cost if contrast.quantity == COST else contrast.quantity.replace("-", " ")
    preposition = "of" if contrast.quantity.startswith("forgetting") else "on"
    where = f" {preposition} {contrast.task}" if contrast.task else ""
    where += f" after phase {contrast.phase}" if contrast.phase else ""
    where += f", {contrast.routing} routing" if contrast.routing != "latest" else ""
    where += f" ({metric})" if metric else ""
    if contrast.interaction is not None:
        return f"({left} - {right}) - ({' - '.join(contrast.interaction)}): {what}{where}"
    return f"{left} - {right}: {what}{where}"


def claim(contrast: Contrast, unit: str, label: Label) -> str:
    """What the contrast states, before any result."""
    left, right = (side_text(contrast, side, label) for side in contrast.sides[:2])
    if contrast.interaction is not None:
        first, second = map(label, contrast.interaction)
        return (f"the step from {right} to {left} changes {_quantity(contrast)}"
                f"{_stated(contrast, unit, f'than the step from {second} to {first}')}")
    if contrast.expect in ("greater", "less"):
        text = _COMPARED.get(contrast.quantity, _OTHER)[0 if contrast.expect == "greater" else 1]
        where = contrast.task
        return f"{left} " + text.format(right=right, on=f" on {where}" if where else "", learned=contrast.learned,
                                        of=f" of {where}" if where else "", cost=contrast.cost,
                                        quantity=contrast.quantity.replace("-", " "))
    if contrast.expect == "equal":
        assert contrast.margin is not None
        of = "share of each other" if contrast.is_ratio else f"{unit} of each other"
        return f"{left} and {right} lie within {given(contrast.margin)} {of} in {_quantity(contrast)}"
    assert contrast.bounds is not None
    low, high = (given(bound) for bound in contrast.bounds)
    relation = "over" if contrast.is_ratio else "minus"
    return f"{_quantity(contrast)} of {left} {relation} that of {right} lies between {low} and {high}"


def side_text(contrast: Contrast, side: Side, label: Label) -> str:
    """An arm, with its base and sequence where the two sides differ in them."""
    left, right = contrast.sides[:2]
    words = [side.base] if left.base != right.base and side.base else []
    words += [side.sequence] if left.sequence != right.sequence and side.sequence else []
    return label(side.arm) + (f" ({', '.join(words)})" if words else "")


def _quantity(contrast: Contrast) -> str:
    name = {RATE_RATIO: "best learning rate", COST: contrast.cost}.get(contrast.quantity,
                                                                     contrast.quantity.replace("-", " "))
    return f"{name} on {contrast.task}" if contrast.task else name


def _stated(contrast: Contrast, unit: str, than: str) -> str:
    """What is claimed of an interaction."""
    if contrast.expect in ("greater", "less"):
        return f" by {'more' if contrast.expect == 'greater' else 'less'} {than}"
    if contrast.expect == "equal":
        assert contrast.margin is not None
        return f" within {given(contrast.margin)} {unit} as much as{than.removeprefix('than')}"
    assert contrast.bounds is not None
    return f" by {given(contrast.bounds[0])} to {given(contrast.bounds[1])} {unit} more {than}"

