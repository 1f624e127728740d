"""`make gpu-check`: does finetrial train, predict, resume and run a trial on this machine's CUDA device?

    .venv/bin/python bench/gpu_check.py                        everything (never timed on a GPU yet); needs CUDA
    .venv/bin/python bench/gpu_check.py --write                and keeps it in bench/results
    .venv/bin/python bench/gpu_check.py --device cpu --dry     the same lines on a CPU, small: only shows that they run

Every check prints a line: ok, FAIL, or -- for a figure without right or wrong. The exit code is 1 if one failed, or if
there is no CUDA device. Without --dry the main model has the shape of GPT-2 small (124M) and random weights.

Another Python that has torch and transformers on the GPU does as well, with `PYTHONPATH=src` in place of an installation.
It needs finetrial's dependencies (pyproject.toml) but those of scorers, tasks and the command line (nltk, rouge_score,
sacrebleu, tree-sitter, typer). Where such a Python comes with torch, what it lacks is often pydantic, altair and
vl-convert-python: a trial's page has its charts even without figure files, so the checks of trials and processes ask
for all three, with what they need (pydantic-core, annotated-types, typing-inspection; jsonschema, jsonschema-specifications,
referencing, rpds-py). bitsandbytes, trl and datasets are optional: without them a line says what was not checked.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from gpu import answers, checks, processes, saving
from gpu.setting import Finding, Setting
from gpu.trial import trials

RESULTS = Path(__file__).parent / "results"
MEASURING_SCRIPT = Path(__file__).with_name("train_against_trl.py").resolve()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks, print them, and with --write keep them. Returns the exit code."""
    options = _options(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as workers have it: products that repeat
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device: nothing was checked")
        return 1
    if options.device == "cpu" and not options.dry:
        print("error: on a CPU only --dry makes sense", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        setting = Setting(options.device, options.dry, Path(folder))
        findings = list(_all(setting, options.only))
    failed = [finding.name for finding in findings if finding.passed is False]
    minutes = (time.monotonic() - started) / 60
    closing = (f"{sum(f.passed is True for f in findings)} ok, {len(failed)} failed"
               f"{': ' + ', '.join(failed) if failed else ''}; {minutes:.1f} minutes")
    print(f"\n{closing}")
    if options.write:
        print(f"written: {_write(options, findings, closing)}")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ..., or cpu with --dry")
    parser.add_argument("--dry", action="store_true", help="small models and few steps: shows only that all lines run")
    parser.add_argument("--only", nargs="+", choices=list(_checks()), help="run only these")
    parser.add_argument("--write", action="store_true", help="keep the findings in bench/results")
    return parser.parse_args(arguments)


def _checks() -> dict[str, Callable[[Setting], Iterator[Finding]]]:
    return {"facts": checks.facts, "losses": checks.same_losses, "predictions": checks.predicts,
            "resume": checks.resumes, "training": checks.trains, "memory": checks.meters, "attention": checks.masked_attention,
            "held": saving.held_once, "answers": answers.answers, "checkpointing": saving.checkpoints, "4-bit": saving.four_bit, "8-bit": saving.eight_bit, "trial": trials,
            "processes": processes.same_result,
            "trl": partial(checks.against_trl, script=MEASURING_SCRIPT)}


def _all(setting: Setting, only: Sequence[str] | None) -> Iterator[Finding]:
    """Every check in turn, printed as it is done; one that breaks is a finding, and the others go on."""
    for name, check in _checks().items():
        if only and name not in only:
            continue
        try:
            for finding in check(setting):
                print(finding.line(), flush=True)
                yield finding
        except Exception as error:  # noqa: BLE001 (whatever breaks a check is what has to be reported)
            traceback.print_exc()
            broken = Finding(name, False, f"breaks: {type(error).__name__}: {error}")
            print(broken.line(), flush=True)
            yield broken


def _write(options: argparse.Namespace, findings: Sequence[Finding], closing: str) -> Path:
    from finetrial.run.provenance import environment, host_facts

    here = environment(options.device)
    host = host_facts(f"python bench/gpu_check.py {' '.join(sys.argv[1:])}".rstrip())
    name = here.device_name or "cpu"
    date = datetime.date.today().isoformat()
    path = RESULTS / f"gpu-check-{date}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.md"
    words = {True: "ok", False: "**FAIL**", None: ""}
    lines = [f"# GPU check on {name}", "",
             f"{date}, {host['platform']}, {host['cpu']}. Command: `{host['command']}`", "",
             ", ".join(f"{package} {version}" for package, version in host["packages"].items()), "",
             "| check | | what was seen |", "|---|---|---|",
             *(f"| {each.name} | {words[each.passed]} | {each.text.replace('|', '/')} |" for each in findings),
             "", closing + "."]
    RESULTS.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
