"""Run the toy trial of `test_kill.py`: `run_toys.py FOLDER RUN JOBS`. Prints "started" as the stages begin."""

import signal
import sys
from pathlib import Path

from finetrial import catalog
from finetrial.records.record import Environment
from finetrial.run.events import RunStarted
from finetrial.run.execute import ExecutionResult, execute
from finetrial.run.store import Store
from finetrial.stages.base import Chosen, Stage

TOYS = tuple(sorted((Path(__file__).parents[1] / "unit" / "run" / "toys").glob("*.py")))
HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")
SEEDS, RATES = (0, 1), ("low", "high")


def plan(folder: Path) -> list[Stage]:
    """Two phases: for each seed and rate a training stage and two predictions; a selection between the phases."""
    places = {"started": str(folder / "started"), "kill": str(folder / "kill")}

    def stage(name, inputs, group="", kind="toy", **spec):
        return Stage(name, kind, 1, {"value": name, "steps": 6, "rounds": 1500, **spec}, inputs, group=group,
                     locations=places)

    def phase(name, inputs):
        return [stage(f"{name}/train", inputs, name), stage(f"{name}/old", {"model": f"{name}/train"}, name),
                stage(f"{name}/new", {"model": f"{name}/train", "data": "data"}, name)]

    stages = [stage("data", {})]
    for seed in SEEDS:
        for rate in RATES:
            stages += phase(f"1/{seed}/{rate}", {"data": "data"})
    for seed in SEEDS:
        scores = {f"{rate}-{s}": f"1/{s}/{rate}/new" for s in SEEDS for rate in RATES}
        stages.append(stage(f"select/{seed}", scores, do="choose", chosen=RATES[seed]))
        parent = Chosen(f"select/{seed}", {rate: f"1/{seed}/{rate}/train" for rate in RATES})
        for rate in RATES:
            stages += phase(f"2/{seed}/{rate}", {"data": "data", "parent": parent})
    return stages


def run(folder: Path, run_folder: Path, jobs: int, listener=None) -> ExecutionResult:
    """Execute the plan on the store in `folder`."""
    return execute(plan(folder), Store(folder / "store"), run_folder, device="cpu", jobs=jobs, environment=HERE,
                   plugins=TOYS, preload=tuple(kind.base_module for kind in catalog.KINDS.values()), listener=listener)


def announce(event):
    if isinstance(event, RunStarted):
        print("started", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), announce)
