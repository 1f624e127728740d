"""Do the data of the built-in studies pass the audit? The rules that look at encoded rows, over the real corpus.

    python tests/validate/built_in_data.py [--size demo | --as-published]

Mines the corpus if it is not kept yet (a minute), encodes every task of every built-in study at the embedded scale, and
prints what each rule finds and how long the rules took. Exit code 1 if anything but notes is found; as published, if a
threat is found that is not accepted, or one is accepted that is not found.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from finetrial.cli.study import built_in_studies
from finetrial.plan.audit import audit, audit_data, audit_plan
from finetrial.plan.bases import bundled_names
from finetrial.plan.build import build
from finetrial.plan.matched import matched_untimed
from finetrial.records.record import Environment, Outcome, Record
from finetrial.stages.base import Stage, StageContext, StageInput
from finetrial.stages.data import Data


def made(stage: Stage, root: Path) -> StageInput:
    """A data stage, run here once."""
    folder, key = root / stage.key({}), stage.key({})
    values = root / f"{key}.json"
    if not values.is_file():
        folder.mkdir()
        context = StageContext(stage.id, stage.spec, {}, folder, folder, "cpu", None, logging.getLogger(),
                               lambda metrics: None, {}, None, stage.locations)
        values.write_text(json.dumps(Data().run(context)), encoding="utf-8")
    here = Environment(device="cpu", torch="", transformers="", peft="", cpu_capability="")
    return StageInput(Record(key=key, stage_id=stage.id, kind="data", identity={}, environment=here,
                             outcome=Outcome.OK, values=json.loads(values.read_text()), started="", seconds=0), folder)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--size", default="demo")
    parser.add_argument("--as-published", action="store_true")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as root:
        for name, built_in in built_in_studies().items():
            study = built_in().as_published() if options.as_published else built_in().study("embedded", options.size)
            if any(not base.source and base.name not in bundled_names() for base in study.bases):
                print(f"{name}: not every base is made yet")
                continue
            study = matched_untimed(study)
            plan = build(study)
            done = {stage.id: made(stage, Path(root)) for stage in plan.stages if stage.kind == "data"}
            started = time.perf_counter()
            found = [*audit(study), *audit_plan(study, plan), *audit_data(study, plan, done.get)]
            seconds = time.perf_counter() - started
            rows = sum(split["num_rows"] for one in done.values() for split in one.record.values["splits"].values())
            print(f"{name}: {len(found)} findings, {rows:,} rows, {seconds:.1f} s")
            for row in found:
                print(f"  {row.severity}{', accepted' * row.accepted} {row.rule}: {row.message}")
            threats = {row.rule for row in found if row.severity == "threat"}
            failed |= threats != set(study.accept_threats) if options.as_published else any(
                row.severity != "note" for row in found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
