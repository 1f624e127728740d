"""Training tokens/s and losses of finetrial's loop against TRL's SFTTrainer, on this machine's CPU, interleaved.

    .venv/bin/python bench/train_against_trl.py                        about 20 minutes on two idle cores
    .venv/bin/python bench/train_against_trl.py --shape gpt2 --steps 6 --rounds 3 --no-curves
    .venv/bin/python bench/train_against_trl.py --rounds 1 --steps 12  a first look

Aims: at least 2x TRL's default and 1.3x the best of its variants; loss curves equal to 1e-2 over 50 steps. The
precision is fp32 unless asked otherwise: on a CPU without bf16 instructions bf16 is emulated and slower on both sides.
TRL is needed: pip install 'trl==1.16.0' 'datasets==5.2.0' (`make bench` does it).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from against_trl import inputs
from against_trl.job import (
    JOB,
    OUTCOME,
    PACKED,
    TRL_DEFAULT,
    TRL_SAME_ROWS,
    UNPACKED,
    VARIANTS,
    Job,
    measure,
    rounds,
    with_losses,
)
from against_trl.report import Measured, largest_difference, markdown
from against_trl.trl_side import INSTALL

RATES = {"full": 1e-3, "lora": 1e-2}  # the middle of the grids of the study `perplexity`
CURVE_STEPS = 50
COMPARED = (("no packing", UNPACKED, TRL_DEFAULT), ("the same packed rows", PACKED, TRL_SAME_ROWS))
DOCUMENTS_IN_A_ROW = 3  # more than fit on average, so that the packed curve has rows enough
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and with --write keep. Returns the exit code."""
    options = _options(arguments)
    if options.measure:
        return _measure(JOB.validate_json(options.measure))
    os.environ.setdefault("TQDM_DISABLE", "1")
    if find_spec("trl") is None or find_spec("datasets") is None:
        print(f"error: TRL is not installed\n  {INSTALL}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        jobs, setting = _prepare(options, Path(folder))
        measured = [_method(job, options) for job in jobs]
    facts = _facts(options, setting)
    text = markdown(facts, measured)
    print(f"\n{text}")
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        kinds = [options.shape] * (options.shape != "tiny") + [options.precision] * (options.precision != "fp32")
        name = "-".join(["train_against_trl", *kinds])
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
        values = {**facts, "methods": [part.as_json() for part in measured]}
        (RESULTS / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        print(f"written: {RESULTS / name}.md and .json")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder (default: tiny-gpt, or random weights of its shape)")
    parser.add_argument("--shape", choices=sorted(inputs.SHAPES), default="tiny", help="gpt2: random weights, 124M")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: processor time, for a machine that is busy with other work; use --threads 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="steps without packing; with it the same rows take fewer")
    parser.add_argument("--warmup-steps", type=int, default=3, help="first steps that are not timed")
    parser.add_argument("--batch", type=int, default=8, help="rows a step")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--methods", nargs="+", choices=sorted(RATES), default=sorted(RATES))
    parser.add_argument("--variants", nargs="+", default=[v.name for v in VARIANTS], metavar="NAME",
                        help="; ".join(v.name for v in VARIANTS))
    parser.add_argument("--no-curves", action="store_true", help="leave the comparison of losses out")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one job as JSON: this process measures it
    options = parser.parse_args(arguments)
    if unknown := set(options.variants) - {v.name for v in VARIANTS}:
        parser.error(f"no variant {sorted(unknown)}; there are {[v.name for v in VARIANTS]}")
    return options


def _measure(job: Job) -> int:
    """In the measuring process: run one side, print its outcome as the last line."""
    if job.variant.side == "trl":
        from against_trl.trl_side import run
    else:
        from against_trl.finetrial_side import run
    print(OUTCOME.dump_json(run(job)).decode())
    return 0


def _prepare(options: argparse.Namespace, folder: Path) -> tuple[list[Job], str]:
    """Model, adapter and rows in `folder`; one job a method, and a line that describes the setting."""
    model = options.model or (inputs.bundled_model() if options.shape == "tiny" else None)
    what = f"Model {model.name}" if model else f"Random weights of the shape {options.shape}"
    model = model or inputs.random_model(options.shape, folder / "model")
    needed = options.batch * max(options.steps, 0 if options.no_curves else CURVE_STEPS * DOCUMENTS_IN_A_ROW)
    rows, source = inputs.rows_for(model, needed, options.sequence_length)
    rows.save(folder / "curve.npz")
    rows.select(range(options.batch * options.steps)).save(folder / "speed.npz")
    adapter = inputs.write_adapter(model, folder / "adapter")
    jobs = [Job(PACKED, method, model, adapter, folder / "speed.npz", options.sequence_length, options.batch,
                RATES[method], options.precision, options.threads, clock=options.clock) for method in options.methods]
    timed = rows.offsets[options.batch * options.steps]
    return jobs, (f"{what}, {options.precision}, {options.threads} threads, {options.clock} time, {options.batch} rows "
                  f"of at most {options.sequence_length} tokens a step, {options.batch * options.steps} documents of "
                  f"{timed:,} tokens, {options.rounds} rounds; {source}.")


def _method(first: Job, options: argparse.Namespace) -> Measured:
    """All variants of one method in turn, then the loss curves."""
    chosen = [variant for variant in VARIANTS if variant.name in options.variants]
    measured = Measured(first.method, options.warmup_steps, {variant: [] for variant in chosen})
    script = Path(__file__).resolve()
    jobs = [replace(first, variant=variant) for variant in chosen]
    for number, job, outcome in rounds(jobs, script, options.rounds):
        measured.outcomes[job.variant].append(outcome)
        result = outcome.failure or f"{outcome.tokens_per_second(options.warmup_steps):,.0f} tokens/s"
        print(f"round {number + 1}  {job.method:<4}  {job.variant.name:<22}  {result}", flush=True)
    if not options.no_curves:
        curve = replace(first, rows=first.rows.with_name("curve.npz"))
        for name, ours, theirs in COMPARED:
            pair = (measure(with_losses(curve, ours, CURVE_STEPS), script),
                    measure(with_losses(curve, theirs, CURVE_STEPS), script))
            measured.curves[name] = pair
            difference = largest_difference(*pair)
            print(f"losses   {first.method:<4}  {name}: largest difference {difference} nats/token "
                  f"{pair[0].failure or pair[1].failure}", flush=True)
    return measured


def _facts(options: argparse.Namespace, setting: str) -> dict[str, Any]:
    """When, where, with what."""
    from finetrial.run.provenance import host_facts

    command = f"python bench/train_against_trl.py {shlex.join(sys.argv[1:])}".rstrip()
    host = host_facts(command)
    versions = {name: host["packages"][name] for name in ("torch", "transformers", "peft", "accelerate")}
    for name in ("trl", "datasets"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return {"date": datetime.date.today().isoformat(), "device": f"{host['cpu']}, {host['cores']} cores",
            "command": command, "versions": versions, "python": host["python"], "commit": host["git_commit"],
            "load_average": load, "setting": setting, "precision": options.precision, "threads": options.threads}


if __name__ == "__main__":
    sys.exit(main())
