"""Does the 95 % interval cover 95 %? Simulated trials with a true difference of zero, estimated by the product's code.

    python tests/validate/coverage.py [--replicates 1000] [--clusters 200]

For each setting and number of seeds: the share of intervals that contain zero, and the median width over that of an
interval that knew every variance. Settings differ in how much seeds, items and their interaction vary; `heavy` draws
seeds from a t distribution with 3 degrees of freedom and items from an exponential; `ratio` goes the whole way from
losses and token counts of unequal clusters through the linearisation. 1,000 replicates take about half a minute
(standard error of a share: 0.007).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from finetrial.analysis.estimate import crossed
from finetrial.analysis.linearise import linearised
from finetrial.scorers.nats_per_token import NatsPerToken

SEEDS = (3, 5, 10)
TOKEN_SPREAD = 0.5  # of the log of a cluster's target tokens, where clusters are unequal


@dataclass(frozen=True)
class Setting:
    """Standard deviations of d[s, i] by source."""

    name: str
    seeds: float
    items: float
    residual: float
    heavy: bool = False
    ratio: bool = False


@dataclass(frozen=True)
class Coverage:
    """The share of intervals that contain the truth, and how wide they are."""

    share: float
    relative_width: float


SETTINGS = (
    Setting("no seed variance", 0.0, 1.0, 0.3),
    Setting("no seed variance, noisy", 0.0, 0.3, 1.0),
    Setting("seeds as large as items' part", 0.07, 1.0, 1.0),
    Setting("seeds twice that", 0.15, 1.0, 0.5),
    Setting("seeds dominate", 0.5, 1.0, 1.0),
    Setting("only seeds", 1.0, 0.1, 0.1),
    Setting("noisy cells", 0.1, 0.3, 1.0),
    Setting("heavy, small seeds", 0.1, 1.0, 1.0, heavy=True),
    Setting("heavy, large seeds", 0.5, 1.0, 1.0, heavy=True),
    Setting("ratio of unequal clusters", 0.1, 1.0, 0.5, ratio=True),
)


def simulate(setting: Setting, num_seeds: int, num_clusters: int, replicates: int, seed: int = 0) -> Coverage:
    """Coverage of the truth, zero, over `replicates` simulated trials."""
    generator = np.random.default_rng([seed, num_seeds, num_clusters])
    effective = num_clusters / (np.exp(TOKEN_SPREAD**2) if setting.ratio else 1.0)  # E[w]^2 / E[w^2] of token weights
    expected = np.sqrt(setting.seeds**2 / num_seeds + setting.items**2 / effective
                       + setting.residual**2 / (num_seeds * effective))
    covered, widths = 0, []
    for _ in range(replicates):
        found = crossed(_draw(generator, setting, num_seeds, num_clusters))
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
    return Coverage(covered / replicates, float(np.median(widths) / (2 * 1.96 * expected)))


def _draw(generator: np.random.Generator, setting: Setting, num_seeds: int, num_clusters: int) -> np.ndarray:
    """d[S, I] with mean zero."""
    if setting.heavy:
        seeds = generator.standard_t(3, (num_seeds, 1)) / np.sqrt(3)
        items = generator.exponential(1.0, (1, num_clusters)) - 1
    else:
        seeds, items = generator.normal(size=(num_seeds, 1)), generator.normal(size=(1, num_clusters))
    residual = generator.normal(size=(num_seeds, num_clusters))
    d = setting.seeds * seeds + setting.items * items + setting.residual * residual
    if not setting.ratio:
        return d
    tokens = np.broadcast_to(generator.lognormal(4.0, TOKEN_SPREAD, (1, num_clusters)), d.shape)
    arms = [linearised(np.stack([(3.0 + part) * tokens, tokens], axis=-1), NatsPerToken().aggregate)
            for part in (d, np.zeros_like(d))]
    return arms[0] - arms[1]


def table(replicates: int, num_clusters: int, settings: Iterable[Setting] = SETTINGS) -> list[str]:
    """One line per setting: coverage and relative width at each number of seeds."""
    lines = [f"{'setting':32}" + "".join(f"{f'{n} seeds':>18}" for n in SEEDS) + "   (coverage, width over oracle)"]
    for setting in settings:
        cells = [simulate(setting, num_seeds, num_clusters, replicates) for num_seeds in SEEDS]
        lines.append(f"{setting.name:32}" + "".join(f"{c.share:11.3f}{c.relative_width:7.2f}" for c in cells))
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Coverage of the crossed interval, by simulation.")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--clusters", type=int, default=200)
    options = parser.parse_args(arguments)
    sys.stdout.write("\n".join(table(options.replicates, options.clusters)) + "\n")


if __name__ == "__main__":
    main()
