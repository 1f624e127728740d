"""Two hundred phases on a Ray cluster of three nodes, two of which are killed at random moments: the same scores as on one machine?

    python tests/validate/cluster.py [--seeds 23] [--draw 0]

The nodes are processes of this machine, a core each; the study is the tests' tiny one, with more learning rates and seeds.
Prints when nodes were killed, and whether anything that had been recorded was computed twice. Exit code 1 if so, or
if a score differs. Left out, with the reason, where Ray is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
RATES = {"full": [0.0003, 0.001, 0.003, 0.01], "lora-r2": [0.003, 0.01, 0.03, 0.1]}
NODES, KILLED = 3, 2
LONGEST_WAIT = 3.0  # seconds between a count of records and the kill


def content(folder: Path, seeds: int) -> dict[str, Any]:
    """The tiny study, with its files below `folder`."""
    from tiny_study import tiny_content

    study = tiny_content(folder)
    arms = [{**arm, "learning_rates": RATES[arm["name"]]} for arm in study["arms"]]
    return {**study, "arms": arms, "seeds": seeds}


def start(folder: Path, runs: str, *options: str) -> subprocess.Popen[str]:
    """A run of the study as a process; what it prints goes into a file."""
    from ray_runs import command

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    with (folder / f"{runs}.log").open("w") as log:
        return subprocess.Popen(command(folder, runs, *options), env=environment, stdout=log, stderr=log, text=True)


def killed_while_running(folder: Path, drawn: random.Random, phases: int) -> dict[Path, tuple[int, int]]:
    """Run on a cluster and kill nodes; the records that there were at each kill."""
    from ray_runs import Nodes, records

    nodes = Nodes()
    for _ in range(NODES):
        nodes.add()
    kept: dict[Path, tuple[int, int]] = {}
    run = start(folder, "cluster", "--on", "ray", "--address", nodes.address)
    try:
        for phase in sorted(drawn.sample(range(1, int(0.8 * phases)), KILLED)):
            until(run, lambda least=phase: len(records(folder, "cluster", "train")) >= least)  # type: ignore[misc]
            time.sleep(drawn.uniform(0, LONGEST_WAIT))
            kept |= records(folder, "cluster")
            nodes.kill(drawn.randrange(len(nodes.alive)))
            print(f"a node was killed after {phase} of {phases} phases, {len(kept)} stages recorded", flush=True)
        run.wait()
    finally:
        run.kill()
        nodes.close()
    return kept


def until(run: subprocess.Popen[str], true: Callable[[], bool]) -> None:
    """Wait, as long as the run goes on."""
    while run.poll() is None and not true():
        time.sleep(0.05)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=23, help="nine phases each")
    parser.add_argument("--draw", type=int, default=0, help="which random moments")
    options = parser.parse_args()
    if importlib.util.find_spec("ray") is None:
        print("left out: ray is not installed (pip install 'finetrial[ray]')")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(yaml.safe_dump(content(folder, options.seeds)))
        from ray_runs import records, scores, values

        from finetrial.plan.build import build
        from finetrial.spec.io import read_study

        stages = build(read_study(folder / "study.yaml", folder), relative_to=folder).stages
        phases = sum(stage.kind == "train" for stage in stages)
        print(f"{phases} phases, {len(stages)} stages; {NODES} nodes", flush=True)
        began = time.monotonic()
        kept = killed_while_running(folder, random.Random(options.draw), phases)
        on_nodes, after = time.monotonic() - began, records(folder, "cluster")
        began = time.monotonic()
        start(folder, "local").wait()
        print(f"on the cluster {on_nodes:.0f} s, on this machine alone {time.monotonic() - began:.0f} s", flush=True)
        again = [str(path) for path, known in kept.items() if after.get(path) != known]
        ours, theirs = values(folder, "cluster"), values(folder, "local")
        different = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        found = [scores(folder, runs) for runs in ("cluster", "local")]
        print(f"recorded at a kill and computed again: {len(again)}; of {len(theirs)} stages different: {len(different)}; "
              f"{len(found[1])} scores {'equal' if found[0] == found[1] else 'DIFFER'}")
        if again or different or found[0] != found[1]:
            print((folder / "cluster.log").read_text()[-3000:], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
