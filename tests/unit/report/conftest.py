"""A study and its results, made up with planted values, for tests of the report.

Five arms, the base and two controls; five seeds; three learning rates; learning curves. `make_results` takes
replacements for any field, so that a test states only what it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from finetrial.records import results as rows
from finetrial.spec import Arm, Contrast, Controls, Hypothesis, PositiveControl, Study, TaskUse
from finetrial.train.config import Budget, Training

LEARNED, OLD = "pydoc-chat", "python-text"
METRIC, UNIT = "nats-per-token", "nats/token"
SEEDS = 5
BASE_LOSS = {LEARNED: 3.41, OLD: 2.73}
RATES = {"full": (1e-4, 3e-4, 1e-3), "lora-r8": (1e-3, 3e-3, 1e-2), "lora-r32": (1e-3, 3e-3, 1e-2),
         "lora-r8-all": (1e-3, 3e-3, 1e-2), "lora-r128": (1e-3, 3e-3, 1e-2)}
LEARNS = {"full": (0.55, 0.83, 0.97), "lora-r8": (0.30, 0.48, 0.56), "lora-r32": (0.41, 0.60, 0.66),
          "lora-r8-all": (0.50, 0.69, 0.74), "lora-r128": (0.44, 0.68, 0.61)}
FORGETS = {"full": (0.12, 0.31, 0.80), "lora-r8": (0.03, 0.09, 0.28), "lora-r32": (0.05, 0.14, 0.40),
           "lora-r8-all": (0.07, 0.19, 0.47), "lora-r128": (0.06, 0.22, 0.60)}
CHOSEN = {"full": 2, "lora-r8": 2, "lora-r32": 2, "lora-r8-all": 2, "lora-r128": 1}
LABELS = {"full": "Full fine-tuning", "lora-r8": "LoRA r=8 (attention)", "lora-r32": "LoRA r=32 (attention)",
          "lora-r8-all": "LoRA r=8 (all linear)", "lora-r128": "LoRA r=128 (attention)"}
CONTROLS = {"full-x10": "Full fine-tuning at 10 times its centre rate", "full-aa": "Full fine-tuning, repeated at its centre rate"}


def make_study(**changes: Any) -> Study:
    """The study that the results belong to."""
    fields: dict[str, Any] = {
        "name": "perplexity", "scale": "embedded", "size": "standard",
        "question": "Does LoRA learn a new domain as well as full fine-tuning, and does it forget less of the old one?",
        "bases": ("tiny-gpt",),
        "tasks": (TaskUse(name=LEARNED, task="pydoc-chat"), TaskUse(name=OLD, task="python-text", role="outside")),
        "arms": tuple(Arm(name=name, label=LABELS[name], learning_rates=rates, components="full" if name == "full"
                          else "lora") for name, rates in RATES.items()),
        "controls": Controls(reference="full", positive=PositiveControl(arm="full", task=OLD)),
        "hypotheses": HYPOTHESES, "training": Training(budget=Budget(amount=75_000, unit="tokens")), "seeds": SEEDS,
        "factors": ("method", "rank", "targets")}
    return Study(**{**fields, **changes})


HYPOTHESES = (
    Hypothesis(name="H1", statement="Full fine-tuning learns the new domain better than LoRA r=8.",
               contrast=Contrast(left="full", right="lora-r8", task=LEARNED, expect="greater", margin=0.05)),
    Hypothesis(name="H2", statement="LoRA r=8 forgets less of the old domain than full fine-tuning.",
               contrast=Contrast(left="lora-r8", right="full", quantity="forgetting", task=OLD, expect="less")),
    Hypothesis(name="H3", statement="At equal learning, LoRA r=8 (all linear) forgets less than full fine-tuning.",
               contrast=Contrast(left="lora-r8-all", right="full", quantity="forgetting-at-matched-plasticity",
                                 task=OLD, learned=LEARNED, expect="less", margin=0.05)),
    Hypothesis(name="H4", statement="A higher rank learns more, step by step.",
               all_of=(Contrast(left="lora-r32", right="lora-r8", task=LEARNED),
                       Contrast(left="lora-r128", right="lora-r32", task=LEARNED))),
    Hypothesis(name="H5", statement="LoRA's best learning rate is about ten times that of full fine-tuning.",
               contrast=Contrast(left="lora-r8", right="full", quantity="learning-rate-ratio", expect="within",
                                 bounds=(5, 20)), primary=False))


def finding(hypothesis: str, verdict: str, estimate: float | None, low: float | None, high: float | None,
            **changes: Any) -> rows.Finding:
    """A finding with five seeds and 188 clusters."""
    fields: dict[str, Any] = {"contrast": f"contrast of {hypothesis}", "confidence": 0.9875, "unit": UNIT, "n_seeds": 5,
                              "n_clusters": 188, "detectable": 0.06, "p_value": 0.0004, "p_adjusted": 0.0016}
    return rows.Finding(hypothesis=hypothesis, verdict=verdict, estimate=estimate, low=low, high=high,
                        **{**fields, **changes})


FINDINGS = (
    finding("H1", "SUPPORTED", 0.412, 0.351, 0.473, margin=0.05),
    finding("H2", "SUPPORTED", -0.521, -0.604, -0.438),
    finding("H3", "INCONCLUSIVE", -0.061, -0.139, 0.017, margin=0.05, p_value=0.061, p_adjusted=0.12, detectable=0.11),
    rows.Finding(hypothesis="H4", verdict="REFUTED"),
    finding("H4", "SUPPORTED", 0.098, 0.047, 0.149, contrast="r32 - r8"),
    finding("H4", "REFUTED", -0.055, -0.093, -0.017, contrast="r128 - r32"),
    finding("H5", "SUPPORTED", 9.4, 6.3, 14.1, unit="ratio", primary=False, n_clusters=None, detectable=None,
            p_value=None, p_adjusted=None, confidence=0.95))


def make_results(**changes: Any) -> rows.Results:
    """Complete results of `make_study`; `changes` replace fields."""
    roles = {"base": "base", **dict.fromkeys(LABELS, "arm"), "full-x10": "positive control", "full-aa": "A/A"}
    scores, measures = _scores_and_measures()
    fields: dict[str, Any] = {
        "study": "perplexity", "scale": "embedded", "size": "standard", "status": "complete",
        "arms": {"base": "Untouched base", **LABELS, **CONTROLS}, "roles": roles, "scores": scores,
        "measures": measures, "costs": _costs(), "findings": FINDINGS, "tuning": _tuning(), "assay": ASSAY,
        "audit": (rows.AuditFinding(rule="rank-differs", severity="note", where="arms.lora-r32",
                                    message="rank differs between arms and is a declared factor"),),
        "recommendation": rows.Recommendation(
            arm="lora-r8-all", runners_up=("lora-r32", "full"),
            text="It keeps 76 % of what full fine-tuning learns and forgets 0.33 nats/token less (0.25 to 0.41)."),
        "provenance": {"command": "finetrial run perplexity --size standard", "study_digest": "5f1c0e9a77b2",
                       "versions": {"finetrial": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
                       "machine": {"device": "cpu", "cores": 2, "gpu": None}, "finished": "2025-01-01T12:00:00Z"}}
    return rows.Results(**{**fields, **changes})


ASSAY = rows.Assay(positive_control="seen", aa_estimate=0.004, aa_low=-0.021, aa_high=0.029,
                   positive_text="Ten times the rate raised the old-domain loss by 1.92 nats/token (1.71 to 2.13).",
                   aa_compared="full fine-tuning at 3e-4 minus full fine-tuning, repeated at its centre rate, on pydoc-chat", aa_unit="nats/token",
                   aa_text="Equal arms differ by 0.004 nats/token on pydoc-chat (−0.021 to 0.029).")


def _scores_and_measures() -> tuple[tuple[rows.Score, ...], tuple[rows.Measure, ...]]:
    draw = np.random.default_rng(7)
    scores = [_score("base", None, 0, None, task, split, loss) for task, loss in BASE_LOSS.items()
              for split in ("val", "test")]
    measures: list[rows.Measure] = []
    every = {**{name: RATES[name] for name in LABELS}, "full-x10": (3e-3,), "full-aa": (3e-4,)}
    for arm, rates in every.items():
        learns = LEARNS.get(arm, (0.9,) if arm == "full-x10" else (0.835,))
        forgets = FORGETS.get(arm, (2.3,) if arm == "full-x10" else (0.318,))
        chosen = CHOSEN.get(arm, 0)
        for place, rate in enumerate(rates):
            for seed in range(SEEDS):
                for task, change in ((LEARNED, -learns[place]), (OLD, forgets[place])):
                    loss = BASE_LOSS[task] + change + draw.normal(0, 0.02)
                    point = place == chosen
                    scores += [_score(arm, seed, 1, rate, task, split, loss + draw.normal(0, 0.01), selected=point)
                               for split in ("val", "test")]
                if place == chosen:
                    scores += _curve(arm, seed, rate, learns[place], draw)
        measures += _measures(arm, learns[chosen], forgets[chosen])
    measures += [_measure("score", "base", task, loss, 0.06, phase=0) for task, loss in BASE_LOSS.items()]
    return tuple(scores), tuple(measures)


def _score(arm: str, seed: int | None, phase: int, rate: float | None, task: str, split: str, value: float | None,
           **changes: Any) -> rows.Score:
    return rows.Score(base="tiny-gpt", arm=arm, sequence=LEARNED, seed=seed, phase=phase, task=task, split=split,
                      metric=METRIC, unit=UNIT, scorer_version=1, higher_is_better=False, primary=True, value=value,
                      point=rows.Point(learning_rate=rate), **{"n": 412, **changes})


def _curve(arm: str, seed: int, rate: float, learned: float, draw: np.random.Generator) -> list[rows.Score]:
    points = []
    for step in range(0, 81, 4):
        loss = BASE_LOSS[LEARNED] - learned * (1 - np.exp(-step / 20)) + draw.normal(0, 0.03)
        points.append(_score(arm, seed, 1, rate, LEARNED, "train", float(loss), step=step, selected=True))
        if step % 20 == 0:
            points.append(_score(arm, seed, 1, rate, LEARNED, "val", float(loss) + 0.05, step=step, selected=True))
    return points


def _measures(arm: str, learned: float, forgot: float) -> list[rows.Measure]:
    return [_measure("score", arm, LEARNED, BASE_LOSS[LEARNED] - learned, 0.031),
            _measure("score", arm, OLD, BASE_LOSS[OLD] + forgot, 0.042),
            _measure("plasticity", arm, LEARNED, learned, 0.028), _measure("forgetting", arm, OLD, forgot, 0.035)]


def _measure(name: str, arm: str, task: str, value: float, half: float, phase: int = 1) -> rows.Measure:
    return rows.Measure(measure=name, base="tiny-gpt", arm=arm, sequence=LEARNED, phase=phase, task=task, metric=METRIC,
                        value=value, low=value - half, high=value + half, n_seeds=SEEDS if phase else None,
                        n_clusters=188, unit=UNIT)


def _costs() -> tuple[rows.Cost, ...]:
    trained = {"full": 6_900_000, "lora-r8": 73_728, "lora-r32": 294_912, "lora-r8-all": 221_184,
               "lora-r128": 1_179_648}
    base = rows.Cost(base="tiny-gpt", arm="base", task=LEARNED, params_total=6_900_000, params_trainable=0)
    return (base, *(rows.Cost(
        base="tiny-gpt", arm=arm, task=LEARNED, params_total=6_900_000 + (0 if arm == "full" else number),
        params_trainable=number, stored_bytes=4 * number, optimizer_bytes=8 * number, device="cpu", precision="bf16",
        train_seconds=75_000 / speed, tuning_seconds=15 * 75_000 / speed, train_tokens=75_000, tokens_per_second=speed,
        peak_host_bytes=int(9e7 + 16 * number))
        for (arm, number), speed in zip(trained.items(), (6_200.0, 9_300.0, 8_900.0, 7_400.0, 8_100.0), strict=True)))


def _tuning() -> tuple[rows.Selection, ...]:
    return tuple(rows.Selection(base="tiny-gpt", arm=arm, sequence=LEARNED, phase=1, task=LEARNED, seed=seed,
                                learning_rates=rates, validation=tuple(-3.41 + gain for gain in LEARNS[arm]),
                                chosen=rates[CHOSEN[arm]], chosen_by_primary=rates[CHOSEN[arm]],
                                at_edge=CHOSEN[arm] == 2)
                 for arm, rates in RATES.items() for seed in range(SEEDS))


class PageText(HTMLParser):
    """Reads a page strictly enough to test it: the visible text, the tags' balance, and every attribute."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, text: str) -> None:
        inside = self.open[-1] if self.open else ""
        (self.scripts if inside in ("script", "style") else self.words).append(text)


@pytest.fixture(scope="session")
def study() -> Study:
    return make_study()


@pytest.fixture(scope="session")
def results() -> rows.Results:
    return make_results()


@pytest.fixture(scope="session")
def new_study() -> Callable[..., Study]:
    return make_study


@pytest.fixture(scope="session")
def new_results() -> Callable[..., rows.Results]:
    return make_results


@pytest.fixture(scope="session")
def new_finding() -> Callable[..., rows.Finding]:
    return finding


@pytest.fixture(scope="session")
def new_score() -> Callable[..., rows.Score]:
    return _score


@pytest.fixture(scope="session")
def parse_page() -> Callable[[str], PageText]:
    return PageText
