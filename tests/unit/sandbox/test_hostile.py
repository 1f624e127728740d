"""Programs that try to do harm cannot: as root and as a plain user, and behind each set of walls that is enough.

Every program runs in one process per setting (driver.py), which also looks at what could be seen outside.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.sandbox.hostile import ALL, Hostile

import finetrial
from finetrial.sandbox import probe
from finetrial.sandbox.languages import find_node

FEWER_WALLS = [("root", "namespaces"), ("plain", "namespaces"), ("root", "landlock"), ("root", "uid")]
SETTINGS = [*(pytest.param(user, "") for user in ("root", "plain")),
            *(pytest.param(*setting, marks=pytest.mark.slow) for setting in FEWER_WALLS)]
CONTROLS = [case for case in ALL if case.control]
pytestmark = pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")


def skip_unless_possible(user: str, left_out: str, *, javascript: bool = False) -> None:
    """This machine, and the user who runs the tests, must be able to show it."""
    if user == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    if user == "plain" and os.geteuid() == 0 and "namespaces" not in probe().names:
        pytest.skip("becoming a plain user who can reach the interpreter needs namespaces")
    if left_out != "control" and probe().without(left_out).missing:
        pytest.skip(f"without {left_out} the sandbox of this machine is not complete")
    if javascript and find_node() is None:
        pytest.skip("needs Node: pip install 'finetrial[javascript]'")


@functools.cache
def driven(user: str, left_out: str) -> dict[str, Any]:
    """What the driver has to tell, once for each setting."""
    environment = {**os.environ, "PYTHONPATH": str(Path(finetrial.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run([os.path.realpath(sys.executable), Path(__file__).with_name("driver.py"), user, left_out],
                              env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    told: dict[str, Any] = json.loads(finished.stdout)
    return told


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
@pytest.mark.parametrize(("user", "left_out"), SETTINGS)
def test_contained(user: str, left_out: str, case: Hostile) -> None:
    skip_unless_possible(user, left_out, javascript=case.language == "javascript")
    if left_out and case.limits:
        pytest.skip("limits are the same with fewer walls")
    outcome = driven(user, left_out)["outcomes"][case.name]
    assert outcome["status"] in case.ends, outcome
    assert "ESCAPED" not in outcome["stdout"], outcome


@pytest.mark.parametrize(("user", "left_out"), SETTINGS)
def test_nothing_is_seen_outside(user: str, left_out: str) -> None:
    """No connection, no changed file, no dead neighbour; no process and no file is left."""
    skip_unless_possible(user, left_out)
    told = driven(user, left_out)
    assert told["effects"] == []
    assert (told["uid"] == 0) == (user == "root")
    assert all(left_out not in outcome["layers"] for outcome in told["outcomes"].values())


@pytest.mark.parametrize("case", CONTROLS, ids=lambda case: case.name)
def test_the_programs_are_harmful(case: Hostile) -> None:
    """Without walls they succeed: being contained is not for a mistake in them."""
    skip_unless_possible("plain", "control", javascript=case.language == "javascript")
    assert "ESCAPED" in driven("plain", "control")["outcomes"][case.name]["stdout"]
