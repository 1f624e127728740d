"""A synthetic study of two tasks learned one after the other, with planted truths: the table its run would have left.

`docs` is scored by loss, `code` by chrF of generated outputs (at the chosen rate only) and by loss; `old` is outside
text. Two orders, both routings, floors, four arms that make a 2x2 factorial with the untouched base (LoRA x layer),
and full fine-tuning. LoRA and layer start fresh in each phase, so that under ORACLE routing what answers for the first
task is untouched. `make_grid` is a smaller study: rank x number of examples as a heat map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from finetrial.catalog import find
from finetrial.records.results import Cost, Point
from finetrial.records.table import CellKey, CurvePoint, Items, ItemScores, Metric, Outputs, Table
from finetrial.spec import Arm, Contrast, Controls, Hypothesis, PositiveControl, Study

DOCS, CODE, OLD = "docs", "code", "old"
FORTH, BACK = "docs-code", "code-docs"
RATES = {"full": (1e-4, 3e-4, 1e-3), **dict.fromkeys(("lora", "layer", "both"), (1e-3, 3e-3, 1e-2))}
BEST = 1  # position in the grid
OFF = (0.15, 0.0, 0.1)  # nats per token that each rate loses to the best
LABELS = {"full": "full fine-tuning", "lora": "LoRA r=8", "layer": "new layer", "both": "LoRA and layer"}
FLOORS = {"floor:copy": 0.16, "floor:lead-1": 0.12}
BASE = {DOCS: 4.0, CODE: 3.5, OLD: 2.7}
LEARNS = {"full": 1.2, "lora": 0.7, "layer": 0.6, "both": 1.0}  # nats per token of the task just trained
FORGETS = {"full": 0.5, "lora": 0.2, "layer": 0.1, "both": 0.25}  # of what was learned before, LATEST
HELPS = 0.1  # nats per token that the first task helps the second
CHRF = {"base": 0.08, "full": 0.30, "lora": 0.24, "layer": 0.22, "both": 0.31}  # on code, once trained
INTERACTION = (CHRF["both"] - CHRF["layer"]) - (CHRF["lora"] - CHRF["base"])
WORDS = ("return", "value", "list", "of", "the", "items", "sorted", "by", "key", "none", "if", "empty", "self", "name")


def make_study(num_seeds: int = 5) -> Study:
    """The study; hypotheses over every kind of contrast that sequences add."""
    return Study(
        name="sequences", question="What is learned, and what forgotten, along docs and code?",
        seeds=tuple(range(num_seeds)), bases=({"name": "tiny"},), training={"budget": "80 steps"},
        tasks=({"name": DOCS, "task": "pydoc-chat"}, {"name": CODE, "task": "pycode"},
               {"name": OLD, "task": "python-text", "role": "outside"}),
        sequences=({"name": FORTH, "tasks": (DOCS, CODE)}, {"name": BACK, "tasks": (CODE, DOCS)}),
        arms=tuple(Arm(name=name, components="full" if name == "full" else "lora", learning_rates=rates,
                       label=LABELS[name], factors=_factors(name)) for name, rates in RATES.items()),
        controls=Controls(reference="full", positive=PositiveControl(arm="full", task=OLD), single_task=True),
        evaluation={"routings": ("latest", "oracle")}, hypotheses=HYPOTHESES)


def _factors(name: str) -> dict[str, str]:
    return {} if name == "full" else {"LoRA": "no" if name == "layer" else "yes",
                                      "layer": "no" if name == "lora" else "yes"}


def _contrast(left: str, right: str, **more: Any) -> Contrast:
    return Contrast(left=left, right=right, **{"sequence": FORTH, **more})


HYPOTHESES = (
    Hypothesis(name="H1", statement="The layer forgets less of docs than full fine-tuning.",
               contrast=_contrast("layer", "full", quantity="forgetting", task=DOCS, expect="less")),
    Hypothesis(name="H2", statement="Under ORACLE routing LoRA and layer forget equally.",
               contrast=_contrast("lora", "layer", quantity="forgetting", task=DOCS, routing="oracle", expect="less")),
    Hypothesis(name="H3", statement="LoRA and layer together gain more than each alone promises.",
               contrast=_contrast("both", "layer", interaction=("lora", "base"), task=CODE)),
    Hypothesis(name="H4", statement="LoRA beats copying the input.",
               contrast=_contrast("lora", "floor:copy", task=CODE)),
    Hypothesis(name="H5", statement="Code is learned better after docs than before.",
               contrast=Contrast(left="full", right="full", task=CODE, metric="nats-per-token", phase=None,
                                 left_sequence=FORTH, right_sequence="only-code")),
    Hypothesis(name="H6", statement="One of the two is better on code, and forgets more or costs more.", any_of=(
        (_contrast("full", "lora", task=CODE),
         _contrast("full", "lora", quantity="forgetting", task=DOCS)),
        (_contrast("full", "lora", task=CODE),
         _contrast("full", "lora", quantity="cost", cost="train_seconds", task=CODE)))),
    Hypothesis(name="H7", statement="Docs help code for both arms alike.", primary=False,
               contrast=_contrast("full", "lora", quantity="forward-transfer", task=CODE, metric="nats-per-token",
                                  expect="equal", margin=0.1)),
    Hypothesis(name="H8", statement="At equal learning of code, the layer forgets less of docs.", primary=False,
               contrast=_contrast("layer", "full", quantity="forgetting-at-matched-plasticity", task=DOCS,
                                  learned=CODE, expect="less")))


def make_table(num_seeds: int = 5, num_test: int = 60) -> tuple[Study, Table]:
    """The study and its table, the same at every call."""
    study = make_study(num_seeds)
    items = {task: _items(task, num_test) for task in BASE}
    rows = [row for path in study.every_path for row in _along(study, path, items)]
    written = [one for path in study.every_path for one in _written(study, path, items[CODE])]
    return study, Table(scores=rows, metrics=metrics(), costs=_costs(), outputs=written, curves=list(_curves(study)),
                        provenance={"command": "finetrial run study.yaml"})


def metrics() -> dict[str, Metric]:
    """Loss, and a mean over items in the place of chrF."""
    return {"nats-per-token": find("scorer", "nats-per-token")().metric(),
            "chrf": Metric("chrf", 1, "chrF", True, lambda sums: sums[..., 0] / sums[..., 1])}


def loss(arm: str, order: Sequence[str], phase: int, task: str, routing: str = "latest") -> float:
    """R[phase, task] in nats per token, without noise and at the better rate."""
    if arm == "base" or phase == 0:
        return BASE[task]
    strength = arm.removesuffix("-aa").removesuffix("-x10")
    harm = 1.5 if arm.endswith("-x10") else 0.0
    if task == OLD:
        return BASE[OLD] + phase * FORGETS[strength] + harm
    at = order.index(task) + 1 if task in order else 0
    helped = HELPS if at > 1 else 0.0
    if at == 0 or phase < at:
        return BASE[task] - (HELPS if phase else 0.0) + harm
    learned = BASE[task] - LEARNS[strength] - helped + harm
    kept = phase == at or (routing == "oracle" and strength != "full")
    return learned if kept else learned + FORGETS[strength]


def _along(study: Study, path: Any, items: Mapping[str, Any]) -> Iterator[ItemScores]:
    for routing in ("latest", "oracle"):  # a run records the base once for each sequence and routing
        for task in BASE:
            yield from _losses(CellKey("tiny", "base", path.name, None), path.tasks, 0, task, routing, items)
    yield from _scores_of_fixed(path, items[CODE])
    own = path in study.paths
    for arm in (*RATES, *(("full-x10", "full-aa") if own else ())):
        strength = arm.removesuffix("-aa").removesuffix("-x10")
        rates = RATES[arm] if arm in RATES else (3e-3,) if arm == "full-x10" else (RATES[strength][BEST],)
        for seed in study.seeds:
            for phase in range(1, len(path.tasks) + 1):
                for rate in rates:
                    cell = CellKey("tiny", arm, path.name, seed, Point(learning_rate=rate))
                    for task in BASE:
                        for routing in ("latest", "oracle"):
                            yield from _losses(cell, path.tasks, phase, task, routing, items)
                if arm != "full-x10":
                    yield from _chrf(arm, path, phase, seed, rates[min(BEST, len(rates) - 1)], items[CODE])


def _weights(arm: str, order: Sequence[str], phase: int, task: str, routing: str) -> str:
    """The phase whose weights answer: under ORACLE those of the task's own phase, unless they went on training."""
    if routing == "oracle" and not arm.startswith("full") and task in order and order.index(task) + 1 < phase:
        return f"of phase {order.index(task) + 1}"
    return f"of phase {phase}"


def _items(task: str, num_test: int) -> dict[str, tuple[Items, np.ndarray, np.ndarray]]:
    found = {}
    for split, number in (("val", 24), ("test", num_test)):
        generator = np.random.default_rng([len(task), number])
        items = Items(tuple(f"{task}-{split}-{index}" for index in range(number)),
                      tuple(f"file-{index // 2}" for index in range(number)))
        found[split] = items, generator.integers(10, 120, number), generator.normal(0.0, 0.5, number)
    return found


def _losses(cell: CellKey, order: Sequence[str], phase: int, task: str, routing: str, items: Mapping[str, Any],
            ) -> Iterator[ItemScores]:
    rate = cell.point.learning_rate
    at = RATES[cell.arm].index(rate) if cell.arm in RATES else BEST
    mean = loss(cell.arm, order, phase, task, routing) + (OFF[at] if task != OLD else 0.1 * (at - BEST))
    answered = f"{cell.arm}/{_weights(cell.arm, order, phase, task, routing)}"
    stays = not answered.endswith(f"of phase {phase}")  # then every rate of this phase is answered by the same weights
    if stays:
        mean = loss(cell.arm, order, order.index(task) + 1, task)
    for split, (listed, num_tokens, difficulty) in items[task].items():
        name = f"{cell.sequence}{answered}{task}{split}{'' if stays else rate}"
        generator = np.random.default_rng([sum(map(ord, name)), cell.seed or 0])
        of_seed = generator.normal(0, 0.01) if cell.seed is not None else 0.0
        losses = mean + of_seed + difficulty + generator.normal(0, 0.03, len(listed))
        statistics = np.stack([losses * num_tokens, num_tokens], axis=-1).astype(float)
        digest = f"{cell.sequence}/{cell.seed}/{answered}/{BEST if stays else at}"
        yield ItemScores(cell, phase, task, split, "nats-per-token", listed, statistics, routing,
                         answer_digest=digest if cell.arm != "base" else "base")


def _values(arm: str, order: Sequence[str], phase: int, seed: int | None, number: int) -> np.ndarray:
    """chrF of every item of `code`."""
    trained = CODE in order and order.index(CODE) + 1 <= phase
    strength = arm.removesuffix("-aa")
    mean = FLOORS.get(arm, CHRF[strength if trained else "base"] if arm not in FLOORS else 0.0)
    if trained and phase > order.index(CODE) + 1:
        mean -= FORGETS[strength] / 10
    generator = np.random.default_rng([sum(map(ord, arm)), phase, seed or 0, 9])
    shared = np.random.default_rng(5).normal(0, 0.015, number)
    return np.clip(mean + shared + generator.normal(0, 0.01, number), 0.0, 1.0)


def _scores_of_fixed(path: Any, items: Mapping[str, Any]) -> Iterator[ItemScores]:
    for arm in ("base", *FLOORS):
        listed = items["test"][0]
        values = _values(arm, path.tasks, 0, None, len(listed))
        yield ItemScores(CellKey("tiny", arm, path.name, None), 0, CODE, "test", "chrf", listed,
                         np.stack([values, np.ones_like(values)], axis=-1), answer_digest=arm)


def _chrf(arm: str, path: Any, phase: int, seed: int, rate: float, items: Mapping[str, Any]) -> Iterator[ItemScores]:
    listed = items["test"][0]
    cell = CellKey("tiny", arm, path.name, seed, Point(learning_rate=rate))
    for routing in ("latest", "oracle"):
        weights = _weights(arm, path.tasks, phase, CODE, routing)
        answering = int(weights.removeprefix("of phase "))
        values = _values(arm, path.tasks, answering, seed, len(listed))
        yield ItemScores(cell, phase, CODE, "test", "chrf", listed, np.stack([values, np.ones_like(values)], axis=-1),
                         routing, answer_digest=f"{path.name}/{seed}/{arm}/{weights}")


def _written(study: Study, path: Any, items: Mapping[str, Any]) -> Iterator[Outputs]:
    listed = items["test"][0]
    generator = np.random.default_rng(11)
    texts = [[" ".join(generator.choice(WORDS, size)) for _ in listed.ids] for size in (24, 9)]
    for arm in ("base", *FLOORS):
        yield Outputs(CellKey("tiny", arm, path.name, None), 0, CODE, listed, texts[0], texts[1],
                      [text[:60] for text in texts[0]],
                      {"chrf": _values(arm, path.tasks, 0, None, len(listed)).tolist()})
    for arm in RATES:
        for seed in study.seeds:
            values = _values(arm, path.tasks, len(path.tasks), seed, len(listed))
            outputs = [" ".join(word if draw < 3 * value else "x" for word, draw in
                                zip(text.split(), generator.random(9), strict=True))
                       for text, value in zip(texts[1], values, strict=True)]
            cell = CellKey("tiny", arm, path.name, seed, Point(learning_rate=RATES[arm][BEST]))
            yield Outputs(cell, len(path.tasks), CODE, listed, texts[0], texts[1], outputs, {"chrf": values.tolist()})


def _costs() -> list[Cost]:
    sizes = {"full": 5_000_000, "lora": 80_000, "layer": 790_000, "both": 870_000}
    machine = np.random.default_rng(3).normal(1.0, 0.05, 5)  # the same for all arms of a repeat
    own = np.random.default_rng(4).normal(1.0, 0.01, (4, 5))
    return [Cost(base="tiny", arm=arm, task=task, params_total=5_000_000, params_trainable=size, stored_bytes=4 * size,
                 optimizer_bytes=8 * size, device="cpu", precision="fp32", train_tokens=100_000, predict_tokens=20_000,
                 tokens_per_second=speed, train_seconds=100_000 / speed, tuning_seconds=1_000_000 / speed,
                 predict_tokens_per_second=4 * speed, predict_seconds=5_000 / speed, peak_host_bytes=10**8 + 12 * size,
                 repeats={"tokens_per_second": tuple((speed * machine * drawn).tolist()),
                          "predict_tokens_per_second": tuple((4 * speed * machine * drawn).tolist())})
            for (arm, size), speed, drawn in zip(sizes.items(), (2000.0, 3000.0, 2800.0, 2600.0), own, strict=True)
            for task in (DOCS, CODE)]


def _curves(study: Study) -> Iterator[CurvePoint]:
    for path in study.paths:
        for arm, rates in RATES.items():
            for seed in study.seeds:
                for phase, task in enumerate(path.tasks, start=1):
                    cell = CellKey("tiny", arm, path.name, seed, Point(learning_rate=rates[BEST]))
                    last = loss(arm, path.tasks, phase, task)
                    for step in (20, 40, 60, 80):
                        value = last + (BASE[task] - last) * float(np.exp(-step / 20))
                        yield CurvePoint(cell, phase, step, task, "val", "nats-per-token", value, 24)


RANKS, NUMBERS = (2, 8, 32), (30, 100, 300)


def grid_score(rank: int, number: int) -> float:
    """Planted loss: more examples help, and the more the higher the rank; at 30 a high rank hurts."""
    return 3.0 - 0.15 * np.log(number / 30) * np.log2(rank) / 3 + 0.04 * (np.log2(rank) if number == 30 else 0.0)


def make_grid(num_seeds: int = 5) -> tuple[Study, Table]:
    """Rank x number of examples, an arm for each, with `factors`."""
    arms = tuple(Arm(name=f"r{rank}-n{number}", components=f"lora:rank={rank}", num_train=number,
                     learning_rates=(1e-3, 3e-3), label=f"LoRA r={rank}, N={number}",
                     factors={"rank": rank, "num_train": number}) for rank in RANKS for number in NUMBERS)
    study = Study(name="grid", question="How does rank matter with few examples?", seeds=tuple(range(num_seeds)),
                  bases=({"name": "tiny"},), training={"budget": "80 steps"}, arms=arms,
                  tasks=({"name": DOCS, "task": "pydoc-chat"},), factors=("method", "rank", "num_train"),
                  hypotheses=(Hypothesis(name="H1", statement="r=32 beats r=8 at N=300.",
                                         contrast=Contrast(left="r32-n300", right="r8-n300", task=DOCS)),))
    items = _items(DOCS, 60)
    rows = []
    for name, seed, rate in [("base", None, None), *((arm.name, seed, rate) for arm in arms for seed in study.seeds
                                                     for rate in arm.learning_rates)]:
        rank, number = (int(part[1:]) for part in name.split("-")) if name != "base" else (0, 0)
        point = Point(learning_rate=rate, rank=rank or None, num_train=number or None)
        for split, (listed, num_tokens, difficulty) in items.items():
            generator = np.random.default_rng([rank, number, seed or 0, int((rate or 0) * 1e4)])
            mean = BASE[DOCS] if name == "base" else grid_score(rank, number) + (0.1 if rate == 1e-3 else 0.0)
            losses = mean + difficulty + generator.normal(0, 0.03, len(listed)) + generator.normal(0, 0.01)
            rows.append(ItemScores(CellKey("tiny", name, "" if name == "base" else DOCS, seed, point),
                                   0 if name == "base" else 1, DOCS, split, "nats-per-token", listed,
                                   np.stack([losses * num_tokens, num_tokens], axis=-1).astype(float)))
    return study, Table(scores=rows, metrics=metrics())
