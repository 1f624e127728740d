"""Do the built-in studies run at their full scale, from the fetch to the report? Their own definitions, without a GPU.

    python tests/validate/full_scale.py [STUDY ...] [--layers 2] [--rates 1] [--keep FOLDER]

A hub on this machine serves repositories of the names that the studies ask for (`tests/hub_stand_ins.py`): random weights
in the published shapes, real tokenizers, data in the published columns. Of a study only the amounts are changed: rows,
steps, seeds, learning rates, length of what is generated, and fp16, which a CPU cannot train in, to fp32. Prints a line a
study and what looks wrong, and what each `finetrial plan NAME --scale full` takes. Exit code 1 if anything looks wrong.

Reads FINETRIAL_REAL_DATA (see that folder's README), and is left out, with the reason, where it is absent.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
REAL = Path(os.environ.get("FINETRIAL_REAL_DATA", Path(__file__).parents[3] / "shared" / "real"))
NAMES = ("perplexity", "plasticity-stability", "rank-low-data", "lora-vs-layer", "hybrid")
SIZES = ("published-budget", "standard", "thorough")
PLANNED_TIMES, MOST_PLAN_SECONDS = 5, 2.0
STEPS, ROWS_A_STEP = 2, 1
NUM_TRAIN, NUM_VAL, NUM_TEST, NEW_TOKENS = 16, 3, 5, 12
OF_WHAT_IS_WRITTEN = ("repetition",)  # a model of random weights may write nothing
REPEATS = 1  # of each cost
FEWEST_SEEDS, FEWEST_RATES = 3, 3  # that give a verdict; that tell a best rate

if TYPE_CHECKING:
    from finetrial.run.trial import Trial
    from finetrial.spec.study import Study


def lightened(study: Study, num_rates: int, num_seeds: int) -> Study:
    """The same study with fewer of everything. Content, arms, controls, hypotheses and shapes of rows stay."""
    from finetrial.spec.io import parse_study

    content = study.identity()
    training = content["training"] | {"budget": {"amount": STEPS, "unit": "steps"}, "batch_sequences": ROWS_A_STEP,
                                      "precision": "fp32", "evaluations": 1}
    tasks = [{**use, "num_train": NUM_TRAIN, "num_val": NUM_VAL, "num_test": NUM_TEST,
              "max_new_tokens": NEW_TOKENS} for use in content["tasks"]]
    arms = []
    for arm in content["arms"]:
        few = {name: rates[:num_rates] for name, rates in arm.get("learning_rates_for", {}).items()}
        rows = {task: min(number, NUM_TRAIN) for task, number in arm.get("num_train", {}).items()}
        arms.append({**arm, "learning_rates": arm["learning_rates"][:num_rates], "learning_rates_for": few,
                     "num_train": rows})
    return parse_study({**content, "training": training, "tasks": tasks, "arms": arms, "seeds": num_seeds}, study.name)


def suspicious(trial: Trial, num_rates: int) -> Iterator[str]:
    """What a run of so few steps should still not show."""
    results = trial.results
    if results.status != "complete":
        yield f"status {results.status}"
    for outcome, count in Counter(row.outcome for row in results.scores if row.outcome != "OK").items():
        yield f"{count} scores {outcome}"
    for name in sorted({f"{row.arm} on {row.task}: {row.metric}" for row in results.scores
                        if row.step is None and row.metric not in OF_WHAT_IS_WRITTEN and (row.value is None or row.n_missing)}):
        yield f"no score, or items without one: {name}"
    for name in sorted({f"{row.arm} on {row.task}: {column}" for row in results.costs
                        for column in ("params_total", "params_trainable", "stored_bytes", "optimizer_bytes",
                                       "tokens_per_second", "peak_host_bytes", "train_seconds")
                        if row.arm != "base" and getattr(row, column) is None}):
        yield f"no cost: {name}"
    for finding in results.findings:
        excused = len(trial.study.seeds) < FEWEST_SEEDS or (num_rates < FEWEST_RATES and "rate" in finding.reason)
        if finding.verdict == "NOT MEASURED" and not excused:
            yield f"{finding.hypothesis} {finding.contrast} NOT MEASURED: {finding.reason}"
    for row in results.audit:
        if row.severity == "threat":
            yield f"threat {row.rule}: {row.message}"
    for name in ("report.html", "analysis.md", "results.json", "records.parquet", "figures", "artifacts"):
        if not (trial.folder / name).exists():
            yield f"no {name}"


def run_one(name: str, options: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    """A line of the table, and what looks wrong."""
    from finetrial.cli.study import built_in_studies
    from finetrial.plan import build
    from finetrial.run.options import RunOptions
    from finetrial.run.trial import run_study
    from finetrial.studies.base import FULL

    build.PROFILE_REPEATS = REPEATS
    study = built_in_studies()[name]().study(FULL, options.size)
    light = lightened(study, options.rates, options.seeds)
    began = time.monotonic()
    trial = run_study(light, RunOptions(runs=folder / "runs", jobs=1, view=options.view), command=f"{name} in small")
    minutes = (time.monotonic() - began) / 60
    kinds = Counter(stage["kind"] for stage in _stages(trial))
    line = f"{name:21} {' '.join(f'{kind} {count}' for kind, count in kinds.items()):75} {minutes:5.1f}"
    return line, list(suspicious(trial, options.rates))


def _stages(trial: Trial) -> Sequence[dict[str, Any]]:
    import json

    stages: Sequence[dict[str, Any]] = json.loads((trial.folder / "plan.json").read_text(encoding="utf-8"))["stages"]
    return stages


def serve(hub: Any, repositories: Sequence[tuple[str, str]], layers: int | None, folder: Path) -> None:
    """Put the models of a study, with their revisions, on the hub on this machine."""
    from hub_stand_ins import model_files

    for number, (repository, revision) in enumerate(repositories):
        hub.add("model", repository, model_files(repository, REAL, folder / f"made-{number}", layers), revision)


def plan_seconds(name: str, size: str) -> tuple[float, float]:
    """Median of wall clock and processor time of planning a study, the interpreter's start included."""
    command = [sys.executable, "-c", "from finetrial.cli import main; main()", "plan", name, "--scale", "full",
               "--size", size]
    walls, processors = [], []
    for _ in range(PLANNED_TIMES):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.monotonic() - began)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(walls), statistics.median(processors)


def time_plans(names: Sequence[str]) -> bool:
    """Print what planning takes; whether any takes too much of a processor."""
    slow = False
    print(f"\nfinetrial plan NAME --scale full: median of {PLANNED_TIMES}, seconds")
    for name in names:
        wall, processor = plan_seconds(name, "standard")
        slow |= processor > MOST_PLAN_SECONDS
        print(f"{name:21} {wall:5.2f} on the clock, {processor:5.2f} of a processor"
              f"{', more than ' + str(MOST_PLAN_SECONDS) if processor > MOST_PLAN_SECONDS else ''}", flush=True)
    return slow


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("studies", nargs="*", default=NAMES, metavar="STUDY", help=", ".join(NAMES))
    parser.add_argument("--size", default="published-budget", choices=SIZES, help="of the studies")
    parser.add_argument("--layers", type=int, help="blocks of every model; by default as published up to 124M parameters")
    parser.add_argument("--rates", type=int, default=1, help="learning rates of an arm")
    parser.add_argument("--seeds", type=int, default=3, help="below three there are no verdicts")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    parser.add_argument("--view", action="store_true", help="show progress")
    parser.add_argument("--plans", action=argparse.BooleanOptionalAction, default=True, help="time the plans")
    options = parser.parse_args()
    if not REAL.is_dir():
        print(f"left out: no real tokenizers and data in {REAL}")
        return 0
    slow = options.plans and time_plans(options.studies)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        return int(run_all(options, folder.resolve()) or slow)


def run_all(options: argparse.Namespace, folder: Path) -> bool:
    """Run the studies against a hub of their own; whether anything looks wrong."""
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    usual = Path(os.environ.get("FINETRIAL_CACHE") or Path.home() / ".cache" / "finetrial")
    for kept in usual.glob("*-*/") if usual.is_dir() else ():  # mined corpora; never the records of fetches
        if not (cache / kept.name).exists():
            (cache / kept.name).symlink_to(kept)
    os.environ |= {"FINETRIAL_CACHE": str(cache), "HF_HOME": str(folder / "hub"), "NO_PROXY": "127.0.0.1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    from loopback_hub import LoopbackHub

    with LoopbackHub() as hub:
        os.environ["HF_ENDPOINT"] = hub.endpoint  # before huggingface_hub is imported
        from hub_stand_ins import data_files

        from finetrial.cli.study import built_in_studies

        for repository, files in data_files(REAL).items():
            hub.add("dataset", repository, files)
        print(f"\n{'study':21} {'stages':75} minutes", flush=True)
        wrong = False
        for name in options.studies:
            bases = built_in_studies()[name]().study("full", options.size).bases
            serve(hub, [(base.source, base.revision or "main") for base in bases], options.layers, folder / name)
            line, faults = run_one(name, options, folder)
            print(line, *(f"  {fault}" for fault in faults), sep="\n", flush=True)
            wrong |= bool(faults)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
