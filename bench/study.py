"""A whole small study, by finetrial and as a practitioner writes it: TRL's SFTTrainer and peft, cell after cell.

    .venv/bin/python bench/study.py                                    tiny-gpt; with --seeds 2 five minutes on two idle cores
    .venv/bin/python bench/study.py --model FOLDER --rounds 2          another model (a Llama or GPT-2 shape)
    .venv/bin/python bench/study.py --levers                           and what finetrial takes without each of its savings
    .venv/bin/python bench/study.py --steps 8 --seeds 2 --items 20     a first look

Full fine-tuning and LoRA r=8 at three learning rates and some seeds on pydoc-summary, with a test loss on the new and on
old text and an output for every test item. Both sides train and score the same encoded rows; each round runs both, so
that they are interleaved. What to read is the ratio of wall times, and whether the scores agree.

The script that is compared with trains, scores and generates for every cell, one row at a time, with all cores in one
process; finetrial runs cells side by side, in batches, and tests and generates where validation chose. Both readings are
printed: as it is, and as if the script, too, had tested and generated at the chosen rates only. Seconds after the names of
stages are the sums over all processes. Memory is the largest sum of proportional set sizes (PSS)
of all processes of a side. TRL is needed: pip install 'trl==1.16.0' 'datasets==5.2.0' (`make bench` does it).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import yaml

from against_trl.trl_side import INSTALL

BUNDLED = Path(__file__).parents[1] / "src" / "finetrial" / "models" / "bundled" / "tiny-gpt"
PRACTITIONER = Path(__file__).parent / "against_trl" / "practitioner.py"
NEW, OLD, RANK, BATCH, MAX_TOKENS, MAX_NEW_TOKENS = "pydoc-summary", "python-text", 8, 4, 192, 48
RATES = {"full": [1e-4, 3e-4, 1e-3], "lora": [1e-3, 3e-3, 1e-2]}
POLL_SECONDS = 0.5
LEVERS: dict[str, tuple[list[str], list[str]]] = {  # what undoes one: settings, options
    "tests and outputs at chosen rates only": (["evaluation.rates=all"], []),
    "documents packed into rows": (["training.packing=false"], []),
    "phases side by side": ([], ["--jobs", "1"]),
}


@dataclass(frozen=True)
class Side:
    """What one side took, and the test losses at its chosen rates: (arm, task) -> one a seed."""

    seconds: float
    peak_bytes: int
    losses: dict[tuple[str, str], list[float]]
    saved_seconds: float = 0.0  # of a side that tests every cell: what testing those at rates not chosen took
    parts: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both sides in turn and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED, help="a model folder (default: tiny-gpt)")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items", type=int, default=100, help="test items of each task; 40 of validation")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--levers", action="store_true", help="run finetrial without each of its savings, too")
    options = parser.parse_args(arguments)
    if find_spec("trl") is None or find_spec("datasets") is None:
        print(f"error: TRL is not installed\n  {INSTALL}", file=sys.stderr)
        return 2
    ours, theirs = [], []
    without: dict[str, list[Side]] = {lever: [] for lever in LEVERS if options.levers}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            ours.append(by_finetrial(options, Path(name)))
            print(f"round {number + 1}  finetrial     {told(ours[-1])}", flush=True)
            theirs.append(by_script(options, Path(name)))
            print(f"round {number + 1}  plain script  {told(theirs[-1])}", flush=True)
        for lever, sides in without.items():
            with tempfile.TemporaryDirectory() as name:
                sides.append(by_finetrial(options, Path(name), *LEVERS[lever]))
                print(f"round {number + 1}  without: {lever}  {told(sides[-1])}", flush=True)
    conclude(ours, theirs)
    for lever, sides in without.items():
        taken = statistics.median(side.seconds for side in sides) / statistics.median(side.seconds for side in ours)
        print(f"{lever}: {taken:.2f}x faster than without")
    return 0


def told(side: Side) -> str:
    """Seconds, memory and parts of a side in one line."""
    return f"{side.seconds:7.1f} s  {side.peak_bytes / 2**20:6.0f} MiB  {side.parts}"


def conclude(ours: Sequence[Side], theirs: Sequence[Side]) -> None:
    """Ratios of medians, and the scores of the last round side by side."""
    own, other = (statistics.median(side.seconds for side in sides) for sides in (ours, theirs))
    frugal = statistics.median(side.seconds - side.saved_seconds for side in theirs)
    memory = [statistics.median(side.peak_bytes for side in sides) for sides in (ours, theirs)]
    print(f"\nwall time: {other / own:.2f}x faster; {frugal / own:.2f}x where the script had tested at chosen rates only")
    print(f"memory: {memory[0] / memory[1]:.2f}x")
    for (arm, task), found in ours[-1].losses.items():
        mean, half = interval(found, theirs[-1].losses[arm, task])
        print(f"{arm:5} {task:14} finetrial {np.mean(found):.4f}  script {np.mean(theirs[-1].losses[arm, task]):.4f}  "
              f"difference {mean:+.4f} (95 % interval {mean - half:+.4f} to {mean + half:+.4f}, {len(found)} seeds)")


def interval(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The difference of two means and half its 95 % interval (Welch): the sides draw other random numbers."""
    from scipy import stats

    found = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return float(found.low + found.high) / 2, float(found.high - found.low) / 2


def by_finetrial(options: argparse.Namespace, folder: Path, settings: Sequence[str] = (),
                 flags: Sequence[str] = ()) -> Side:
    """`finetrial run study.yaml` with an empty store, and with these settings and flags."""
    study = {"name": "whole", "size": "small", "question": "Which learns more?",
             "bases": [{"name": "base", "source": str(options.model.resolve())}],
             "tasks": [{"name": NEW, "task": NEW, "num_val": 40, "num_test": options.items, "max_new_tokens": MAX_NEW_TOKENS},
                       {"name": OLD, "task": OLD, "role": "outside", "num_val": 20, "num_test": options.items}],
             "arms": [{"name": "full", "components": "full", "learning_rates": RATES["full"]},
                      {"name": "lora", "components": f"lora:rank={RANK}", "learning_rates": RATES["lora"]}],
             "training": {"budget": f"{options.steps} steps", "sequence_length": MAX_TOKENS, "batch_sequences": BATCH,
                          "evaluations": 1},
             "evaluation": {"rates": "chosen"}, "seeds": options.seeds,
             "accept_threats": ["seen-in-pretraining", "truncated-targets"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "finetrial.cli", "run", "study.yaml", "--runs", "runs", *flags,
               *(word for setting in settings for word in ("--set", setting))]
    seconds, peak, _ = watched(command, folder)
    (found,) = (folder / "runs").glob("*/results.json")
    results = json.loads(found.read_text())
    losses: dict[tuple[str, str], list[float]] = {}
    for row in results["scores"]:
        if row["selected"] and row["split"] == "test" and row["metric"] == "nats-per-token" and row["arm"] in RATES \
                and row["step"] is None:
            losses.setdefault((row["arm"], row["task"]), []).append(row["value"])
    spent: dict[str, float] = {}
    for path in (folder / "runs" / ".store").rglob("record.json"):
        record = json.loads(path.read_text())
        spent[record["kind"]] = spent.get(record["kind"], 0.0) + record["seconds"]
    parts = ", ".join(f"{kind} {value:.0f} s" for kind, value in sorted(spent.items(), key=lambda part: -part[1]) if value >= 0.5)
    return Side(seconds, peak, losses, parts=parts)


def by_script(options: argparse.Namespace, folder: Path) -> Side:
    """The plain script, on the rows that finetrial's data stages left in `folder`."""
    new, old = data_folders(folder / "runs" / ".store" / "data")
    targets = ["c_attn", "attn.c_proj"] if "gpt2" in (options.model / "config.json").read_text() else [
        "q_proj", "k_proj", "v_proj", "o_proj"]
    setting = {"model": str(options.model.resolve()), "seeds": options.seeds, "steps": options.steps, "batch": BATCH,
               "max_tokens": MAX_TOKENS, "max_new_tokens": MAX_NEW_TOKENS,
               "arms": [{"name": "full", "learning_rates": RATES["full"]},
                        {"name": "lora", "learning_rates": RATES["lora"], "rank": RANK, "targets": targets}],
               "rows": {"train": str(new / "train.npz"), "val": str(new / "val.npz"), "test": str(new / "test.npz"),
                        "prompts": str(new / "test-prompts.npz"), "old": str(old / "test.npz")}}
    (folder / "setting.json").write_text(json.dumps(setting))
    seconds, peak, printed = watched([sys.executable, str(PRACTITIONER), "setting.json"], folder)
    found = json.loads(printed.splitlines()[-1])
    losses: dict[tuple[str, str], list[float]] = {}
    for arm, rates in RATES.items():
        of_arm = [cell for cell in found["cells"] if cell["arm"] == arm]
        best = min(rates, key=lambda rate: statistics.fmean(cell["val"] for cell in of_arm if cell["rate"] == rate))
        for task, split in ((NEW, "test"), (OLD, "old")):
            losses[arm, task] = [cell[split] for cell in of_arm if cell["rate"] == best]
    not_chosen = 1 - 1 / len(RATES["full"])
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in found["seconds"].items())
    tested = found["seconds"]["score"] + found["seconds"]["generate"]
    return Side(seconds, peak, losses, tested * not_chosen, parts)


def data_folders(store: Path) -> tuple[Path, Path]:
    """Where the rows of the new and of the old task lie: only the new one has prompts."""
    folders = [record.parent for record in store.rglob("record.json")]
    new = next(folder for folder in folders if (folder / "test-prompts.npz").is_file())
    return new, next(folder for folder in folders if folder != new)


def watched(command: Sequence[str], folder: Path) -> tuple[float, int, str]:
    """Run a command: its wall time, the largest PSS of its processes together, what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
                   "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, stderr=complaints)
        peaks = [0]
        watcher = threading.Thread(target=_watch, args=(process, peaks), daemon=True)
        watcher.start()
        printed, _ = process.communicate()
        seconds = time.perf_counter() - began
        if process.returncode:
            complaints.seek(0)
            raise SystemExit(f"error: {' '.join(map(str, command))} ended with {process.returncode}:\n"
                             f"{printed[-2000:]}\n{complaints.read()[-2000:]}")
    return seconds, max(peaks), printed


def _watch(process: subprocess.Popen[str], peaks: list[int]) -> None:
    while process.poll() is None:
        total = 0
        try:
            root = psutil.Process(process.pid)
            for one in (root, *root.children(recursive=True)):
                total += one.memory_full_info().pss
        except psutil.Error:  # one of them has just ended
            pass
        peaks.append(total)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
