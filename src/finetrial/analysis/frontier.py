"""Forgetting at matched plasticity: what each arm forgets once both have learned equally much.

An arm's points are its final states over the learning-rate grid, each with plasticity P (learned) and forgetting F,
and its state before the last phase, which nothing that the phase does can have cost: in a first phase the untouched base,
P = 0 and F = 0 exactly; later what the phases before left, P that has transferred and F that they cost.
For each seed the frontier is chosen on validation by the other seeds: the states that no other state beats in both.
It is read on test: forgetting as an isotonic function of plasticity over those states (more learning never costs less; Barlow
et al. 1972, pool adjacent violators), interpolated linearly at P* between them and the state before. P* is 90 % of the smaller arm's best mean plasticity, a
rule fixed before the run: which rate is best, validation tells; how much is learned there, test, where it is read.
Validation rows may be easier or harder than test rows, and a P* in their terms out of reach. Arms are paired over
seeds. Nothing is extrapolated: an arm whose points do not reach P* is not comparable there.

Shapes: S seeds, R learning rates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

from finetrial.analysis.missing import NotMeasured
from finetrial.records.table import Floats

MATCHED_SHARE = 0.9


@dataclass(frozen=True)
class States:
    """The final states of one arm, all [S, R]; NaN where a run failed. `before`: P and F on test before the last phase, each
    [S]; None where they are not scored."""

    arm: str
    plasticity_val: Floats
    forgetting_val: Floats
    plasticity_test: Floats
    forgetting_test: Floats
    before: tuple[Floats, Floats] | None

    def finished(self) -> States:
        """Without the learning rates at which any seed failed. Raises NotMeasured if none is left."""
        parts = (self.plasticity_val, self.forgetting_val, self.plasticity_test, self.forgetting_test)
        keep = np.isfinite(np.stack(parts)).all(axis=(0, 1))
        if not keep.any():
            raise NotMeasured(f"{self.arm} has no learning rate at which every seed finished")
        return replace(self, plasticity_val=self.plasticity_val[:, keep], forgetting_val=self.forgetting_val[:, keep],
                       plasticity_test=self.plasticity_test[:, keep], forgetting_test=self.forgetting_test[:, keep])


@dataclass(frozen=True)
class Matched:
    """Forgetting of both arms at the plasticity `plasticity`, one value per seed, [S]."""

    plasticity: float
    left: Floats
    right: Floats


def match(left: States, right: States) -> Matched:
    """Forgetting at matched plasticity. Raises NotMeasured where the arms are not comparable."""
    arms = (left.finished(), right.finished())
    best = [float(arm.plasticity_test.mean(axis=0)[arm.plasticity_val.mean(axis=0).argmax()]) for arm in arms]
    target = MATCHED_SHARE * min(best)
    if target <= 0:
        loser = arms[best.index(min(best))].arm
        raise NotMeasured(f"not comparable: {loser} learns nothing (best mean plasticity {min(best):.3g})")
    values = [np.array([_read(arm, seed, target) for seed in range(len(arm.plasticity_val))]) for arm in arms]
    return Matched(target, values[0], values[1])


def on_frontier(plasticity: Floats, forgetting: Floats) -> NDArray[np.bool_]:
    """Which of R states no other beats: at least as much learned, no more forgotten, and one of them strictly."""
    learned = plasticity[:, np.newaxis] - plasticity[np.newaxis, :]  # [R, R]: of row minus of column
    forgot = forgetting[:, np.newaxis] - forgetting[np.newaxis, :]
    beats = (learned >= 0) & (forgot <= 0) & ((learned > 0) | (forgot < 0))
    return np.asarray(~beats.any(axis=0), dtype=np.bool_)


def _read(arm: States, seed: int, target: float) -> float:
    """Forgetting of one seed at plasticity `target`, on test."""
    others = np.arange(len(arm.plasticity_val)) != seed
    judges = others if others.any() else ~others
    keep = on_frontier(arm.plasticity_val[judges].mean(axis=0), arm.forgetting_val[judges].mean(axis=0))
    plasticity, forgetting = arm.plasticity_test[seed, keep], arm.forgetting_test[seed, keep]
    order = np.argsort(plasticity, kind="stable")
    plasticity, forgetting = plasticity[order], scipy.optimize.isotonic_regression(forgetting[order]).x
    if arm.before is not None:
        learned, lost = (part[seed] for part in arm.before)
        place = int(np.searchsorted(plasticity, learned))  # not pooled: what is learned may help the old text
        plasticity, forgetting = np.insert(plasticity, place, learned), np.insert(forgetting, place, lost)
    if not plasticity[0] <= target <= plasticity[-1]:
        end = f"stops at P={plasticity[-1]:.3g}" if target > plasticity[-1] else f"begins at P={plasticity[0]:.3g}"
        raise NotMeasured(f"not comparable at P*={target:.3g}: arm {arm.arm} {end}")
    return float(np.interp(target, plasticity, forgetting))
