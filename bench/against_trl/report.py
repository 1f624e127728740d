"""From outcomes to the table: medians with least and greatest, ratios round by round, differences of loss curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from against_trl.job import PACKED, TRL_DEFAULT, UNPACKED, Outcome, Variant, median_range

AIM_DEFAULT, AIM_BEST, AIM_LOSS = 2.0, 1.3, 1e-2


@dataclass
class Measured:
    """All that was measured of one method: outcomes by variant, one a round; pairs of loss curves by their name."""

    method: str
    warmup_steps: int
    outcomes: dict[Variant, list[Outcome]] = field(default_factory=dict)
    curves: dict[str, tuple[Outcome, Outcome]] = field(default_factory=dict)

    def rates(self, variant: Variant) -> list[float]:
        """Tokens per second, one a round; empty if the variant does not run."""
        outcomes = self.outcomes.get(variant, [])
        return [] if any(o.failure for o in outcomes) else [o.tokens_per_second(self.warmup_steps) for o in outcomes]

    def ratio(self, ours: Variant, theirs: Variant) -> tuple[float, float, float] | None:
        """Median, least and greatest over rounds of ours / theirs; None if one does not run."""
        pairs = list(zip(self.rates(ours), self.rates(theirs), strict=False))
        return median_range([a / b for a, b in pairs]) if pairs else None

    def best(self) -> Variant | None:
        """TRL's fastest variant, by median."""
        running = [v for v in self.outcomes if v.side == "trl" and self.rates(v)]
        return max(running, key=lambda v: statistics.median(self.rates(v)), default=None)

    def verdicts(self) -> list[tuple[str, float | None, float, bool]]:
        """(what, value, aim, reached) for the aims on speed and on loss."""
        best = self.best()
        against_default = self.ratio(PACKED, TRL_DEFAULT)
        against_best = self.ratio(PACKED, best) if best else None
        lines = [(f"{self.method}: finetrial / TRL default", _middle(against_default), AIM_DEFAULT,
                  against_default is not None and against_default[0] >= AIM_DEFAULT),
                 (f"{self.method}: finetrial / TRL's best ({best.name if best else 'none runs'})",
                  _middle(against_best), AIM_BEST, against_best is not None and against_best[0] >= AIM_BEST)]
        for name, pair in self.curves.items():
            difference = largest_difference(*pair)
            lines.append((f"{self.method}: largest difference of loss, {name}", difference, AIM_LOSS,
                          difference is not None and difference <= AIM_LOSS))
        return lines

    def table(self) -> list[str]:
        """Markdown: one row a variant."""
        lines = [_HEAD, "|---|---|---|---|---|---|"]
        for variant, outcomes in self.outcomes.items():
            rates = self.rates(variant)
            if not rates:
                reason = next(o.failure for o in outcomes if o.failure)
                lines.append(f"| {variant.name} | does not run here: {_cell(reason)} | | | | {variant.note} |")
                continue
            middle, least, greatest = median_range(rates)
            lines.append(f"| {variant.name} | {middle:,.0f} ({least:,.0f} to {greatest:,.0f}) | "
                         f"{_times(self.ratio(PACKED, variant))} | {_times(self.ratio(UNPACKED, variant))} | "
                         f"{_megabytes(outcomes)} | {variant.note} |")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Every number, by variant."""
        return {
            "method": self.method, "warmup_steps": self.warmup_steps,
            "variants": [{"name": v.name, "note": v.note, "options": dict(v.options),
                          "tokens_per_second": self.rates(v), "ratio": self.ratio(PACKED, v),
                          "ratio_without_packing": self.ratio(UNPACKED, v),
                          "peak_host_bytes": [o.peak_host_bytes for o in outcomes],
                          "failure": next((o.failure for o in outcomes if o.failure), None)}
                         for v, outcomes in self.outcomes.items()],
            "curves": [{"comparison": name, "finetrial": list(ours.losses), "trl": list(theirs.losses),
                        "failure": ours.failure or theirs.failure or None,
                        "largest_difference": largest_difference(ours, theirs)}
                       for name, (ours, theirs) in self.curves.items()],
            "aims": [{"what": what, "value": value, "aim": aim, "reached": reached}
                     for what, value, aim, reached in self.verdicts()]}


def largest_difference(ours: Outcome, theirs: Outcome) -> float | None:
    """The largest absolute difference between two curves step by step, in nats per token; None if one is missing."""
    if not ours.losses or len(ours.losses) != len(theirs.losses):
        return None
    return max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))


def markdown(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = ["# Training speed against TRL's SFTTrainer", "",
             f"{facts['date']}, {facts['device']}, load average {facts['load_average']}. {facts['setting']}", "",
             f"Command: `{facts['command']}`", "", versions, "", _CONDITIONS, "", _CHUNKED, ""]
    for part in measured:
        lines += [f"## {part.method}", "", *part.table(), ""]
    lines += ["## Aims", "", "| what | value | aim | reached |", "|---|---|---|---|"]
    for part in measured:
        for what, value, aim, reached in part.verdicts():
            bound = "at most" if aim == AIM_LOSS else "at least"
            shown = "not measured" if value is None else f"{value:.2g}" if aim == AIM_LOSS else f"{value:.2f}"
            lines.append(f"| {what} | {shown} | {bound} {aim:g} | {'yes' if reached else 'no'} |")
    return "\n".join(lines) + "\n"


_HEAD = ("| variant | real tokens/s, median (least to greatest) | finetrial is faster by | finetrial without packing "
         "is faster by | peak memory | what it is |")
_CONDITIONS = (
    "Same model, rows, order, batch (rows a step), optimizer (AdamW, fused, no weight decay, clipping at 1), schedule "
    "and precision on both sides; dropout 0. Each measurement is a process of its own; variants take turns, and ratios "
    "are taken round by round. Warm-up steps, compilation among them, are left out. One pass over the same rows, "
    "real tokens only: padding does not count.")
_CHUNKED = ("TRL's `loss_type='chunked_nll'` has become an alias of its default loss, so every variant has the chunked "
            "loss.")


def _middle(ratio: tuple[float, float, float] | None) -> float | None:
    return None if ratio is None else ratio[0]


def _times(ratio: tuple[float, float, float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f}x ({ratio[1]:.2f} to {ratio[2]:.2f})"


def _megabytes(outcomes: Sequence[Outcome]) -> str:
    known = [o.peak_host_bytes for o in outcomes if o.peak_host_bytes is not None]
    return f"{statistics.median(known) / 1e6:,.0f} MB" if known else "unknown"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
