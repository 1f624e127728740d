"""Before a run: which differences it could find, judged by the noise known so far.

What is known of a comparison's noise comes, best first, from earlier records of the same arms (fewer seeds of this study,
or a pilot), from the A/A control (the reference arm against itself: at least that much), or from a stated prior,
`--expect-sd SEEDS[,ITEMS]`. The effect is the one that is found with a power of 80 % at the first step of Holm's
procedure, the strictest; the error rate is divided by the declared looks.

    rows = forecast_power(study, table)                      # a table of what the store holds, complete or not
    rows = forecast_power(study, expected=stated_noise("0.02"))
    render_power(rows)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from finetrial import catalog
from finetrial.analysis.contrasts import answer, estimate_loadings
from finetrial.analysis.estimate import Components
from finetrial.analysis.loading import Branch, Entry, Loading
from finetrial.analysis.looks import MOST_SEEDS
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.numbers import counted, plain
from finetrial.analysis.power import detectable_with, seeds_for_equivalence, seeds_needed
from finetrial.analysis.sentences import key
from finetrial.analysis.trial import Trial
from finetrial.errors import UserError
from finetrial.records.table import Table
from finetrial.spec.hypothesis import COST, MATCHED, RATE_RATIO, Contrast
from finetrial.spec.study import BASE_ARM, FEWEST_SEEDS, Study

UNKNOWN = "no records of these arms; --expect-sd states a prior"
PER_SEED = (MATCHED, RATE_RATIO)  # one number a seed: items are no source of variance there


@dataclass(frozen=True)
class Noise:
    """What is known of the spread of a paired difference d[s, i]: variances by source, over so many clusters of items."""

    components: Components
    num_clusters: int | None  # None = as many as the study has test items
    source: str
    at_least: bool = False  # the true spread can only be larger


@dataclass(frozen=True)
class Forecast:
    """What one contrast of the study could find. `effect` and `margin` in `unit`; a ratio, if the contrast is of ratios."""

    hypothesis: str
    contrast: str
    effect: float | None  # None = not known, and `reason` says why
    unit: str
    margin: float | None
    seeds_for_margin: int | None  # seeds that would find a difference of the margin; None = not known, or above 200
    num_seeds: int
    num_clusters: int | None
    alpha: float
    source: str = ""
    at_least: bool = False
    reason: str = ""

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the margin is smaller than what could be found."""
        return self.effect is not None and self.margin is not None and self.effect > self.margin

    def as_json(self) -> dict[str, Any]:
        """JSON-like content."""
        return {**asdict(self), "is_out_of_reach": self.is_out_of_reach}


def stated_noise(text: str) -> Noise:
    """A prior: `0.02`, the standard deviation of a difference between seeds, or `0.02,0.6` with that between items.

    Raises UserError for anything else.
    """
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 2 or not all(math.isfinite(part) and part >= 0 for part in parts):
        raise UserError(f"--expect-sd {text!r} is not one or two standard deviations",
                        "for example --expect-sd 0.02 (between seeds), or 0.02,0.6 (and between items), "
                        "in the metric's unit")
    seeds, items = (*parts, 0.0)[:2]
    return Noise(Components(seeds**2, items**2, 0.0), None, "stated")


def forecast_power(study: Study, table: Table | None = None, *, expected: Noise | None = None,
                   num_looks: int = 1) -> tuple[Forecast, ...]:
    """One row for each contrast of the study's hypotheses but costs. A stated prior stands in where nothing is known."""
    family = len({contrast.test for hypothesis in study.hypotheses if hypothesis.primary
                  for contrast in hypothesis.contrasts if contrast.is_tested})
    whole = (1 - study.evaluation.confidence) / num_looks
    records, rows = _Records(study, table) if table is not None else None, []
    for hypothesis in study.hypotheses:
        alpha = whole / family if hypothesis.primary and family else whole
        for contrast in hypothesis.contrasts:
            if contrast.quantity != COST:
                noise = records.noise(contrast) if records is not None else None
                rows.append(_forecast(study, hypothesis.name, contrast, noise or expected, alpha))
    return tuple(rows)


def render_power(rows: Sequence[Forecast]) -> RenderableType:
    """What `finetrial plan` prints below the hypotheses."""
    table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("Comparison", "Detectable", "Margin", "Seeds for it", "Known from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        effect = "unknown" if row.effect is None else f"{'over ' if row.at_least else ''}{plain(row.effect)} {row.unit}"
        margin = "" if row.margin is None else plain(row.margin) + (" (out of reach)" if row.is_out_of_reach else "")
        table.add_row(f"{row.hypothesis}: {row.contrast}", effect, margin, _seeds_text(row), row.source or row.reason)
    title = Text("Detectable differences (power 80 %)", style="bold")
    return Group(title, table if rows else Text("no comparison has sampling error"))


def _seeds_text(row: Forecast) -> str:
    if row.margin is None or row.effect is None:
        return ""
    return f"over {MOST_SEEDS}" if row.seeds_for_margin is None else str(row.seeds_for_margin)


def _forecast(study: Study, hypothesis: str, contrast: Contrast, noise: Noise | None, alpha: float) -> Forecast:
    metric = _metric(study, contrast)
    num_seeds, is_ratio = len(study.seeds), contrast.quantity == RATE_RATIO
    bare = Forecast(hypothesis, key(contrast, metric), None, "times" if is_ratio else _unit(metric),
                    contrast.margin, None, num_seeds, None, alpha, reason=UNKNOWN)
    if all(side.arm == BASE_ARM for side in contrast.sides):
        return replace(bare, reason="nothing is trained: items are the only source of noise")
    if num_seeds < FEWEST_SEEDS:
        return replace(bare, reason=f"{counted(num_seeds, 'seed')} {'gives' if num_seeds == 1 else 'give'} no interval")
    if noise is None:
        return bare
    components = noise.components
    clusters = noise.num_clusters or (study.task(contrast.task).num_test if contrast.task else 1)
    if contrast.quantity in PER_SEED:
        components, clusters = Components(components.seeds + components.residual, 0.0, 0.0), 1
    effect = detectable_with(components, num_seeds, clusters, alpha)
    wanted = contrast.margin and (math.log1p(contrast.margin) if is_ratio else contrast.margin)
    count = seeds_for_equivalence if contrast.expect == "equal" else seeds_needed
    return replace(bare, effect=math.exp(effect) if is_ratio else effect, reason="", source=noise.source,
                   margin=1 + contrast.margin if is_ratio and contrast.margin else contrast.margin,
                   at_least=noise.at_least, num_clusters=clusters,
                   seeds_for_margin=count(wanted, components, clusters, alpha) if wanted else None)


class _Records:
    """A table, asked for the noise of contrasts; trials over the same seeds are made once."""

    def __init__(self, study: Study, table: Table) -> None:
        self._study, self._table = study, table
        self._trials: dict[tuple[int, ...], Trial] = {}
        self._seeds: dict[str, set[int | None]] = defaultdict(set)
        for row in table.scores:
            if row.split == "test":
                self._seeds[row.cell.arm].add(row.cell.seed)

    def noise(self, contrast: Contrast) -> Noise | None:
        """From the contrast itself, else from the A/A control."""
        arms = {arm.name for arm in self._study.arms} & {side.arm for side in contrast.sides}
        seeds = tuple(seed for seed in self._study.seeds if all(seed in self._seeds[arm] for arm in arms))
        found = answer(self._trial(seeds), contrast).estimate if len(seeds) >= FEWEST_SEEDS else None
        if found is None or found.components is None:
            return self._aa_noise(contrast)
        return Noise(found.components, found.num_clusters, f"{len(seeds)} seeds recorded")

    def _aa_noise(self, contrast: Contrast) -> Noise | None:
        """The spread of the reference arm against itself on the contrast's task. Two arms differ by more than that."""
        study, controls = self._study, self._study.controls
        if controls is None or not contrast.task or contrast.quantity in PER_SEED:
            return None
        trial, path = self._trial(study.seeds), study.paths[0]
        entry = Entry(len(path.tasks), contrast.task, _metric(study, contrast))
        arm = Branch(study.bases[0].name, controls.reference, path.name)
        rate = study.arm(controls.reference).centre_rate(path.tasks[-1])
        loadings = [Loading(1.0, arm, entry, rate=rate),
                    Loading(-1.0, replace(arm, arm=controls.aa_name), entry, rate=rate)]
        seeds, _ = trial.measured_seeds(loadings)
        try:
            found = estimate_loadings(trial, loadings, seeds)[0] if len(seeds) >= FEWEST_SEEDS else None
        except NotMeasured:  # no item has a score in every run: nothing is known
            return None
        if found is None or found.components is None:
            return None
        return Noise(found.components, found.num_clusters, f"A/A control, {len(seeds)} seeds", at_least=True)

    def _trial(self, seeds: tuple[int, ...]) -> Trial:
        if seeds not in self._trials:
            self._trials[seeds] = Trial(self._study.model_copy(update={"seeds": seeds}), self._table)
        return self._trials[seeds]


def _metric(study: Study, contrast: Contrast) -> str:
    """The metric a contrast is read in: its own, else the task's primary one."""
    if contrast.metric or not contrast.task or contrast.quantity == RATE_RATIO:
        return contrast.metric
    return study.task(contrast.task).primary_metric


def _unit(metric: str) -> str:
    """The unit of a metric by its name."""
    return str(catalog.find("scorer", metric).unit) if metric else ""  # type: ignore[attr-defined]
