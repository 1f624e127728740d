"""The model of a phase where bitsandbytes computes for it: its version belongs to the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_content

from finetrial import catalog
from finetrial.errors import MissingPackage, UserError
from finetrial.models import quantized
from finetrial.plan.build import build
from finetrial.spec.io import parse_study
from finetrial.stages.adapted import begin, loaded
from finetrial.stages.base import Stage
from finetrial.train.config import EIGHT_BIT


def installed(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "installed_version", lambda package: version)


def planned(folder: Path, *, optimizer: str = "adamw", **of_arm: Any) -> Stage:
    """A training stage of LoRA, as it is planned with what is installed now."""
    content = tiny_content(folder)
    content["training"]["optimizer"] = optimizer
    content |= {"arms": [{**content["arms"][1], **of_arm}], "controls": None, "hypotheses": []}
    plan = build(parse_study(content, "study"), relative_to=folder)
    return next(stage for stage in plan.stages if stage.kind == "train")


USES = (({"quantization": "nf4"}, "quantization: nf4"), ({"optimizer": EIGHT_BIT}, f"the optimizer {EIGHT_BIT}"))


@pytest.mark.parametrize(("changes", "purpose"), USES)
def test_another_version_than_planned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str],
                                                 purpose: str) -> None:
    installed("0.50.2", monkeypatch)
    stage = planned(tmp_path, **changes)
    installed("0.51.0", monkeypatch)
    with pytest.raises(UserError, match=rf"bitsandbytes is 0\.51\.0 here, and the study was planned with 0\.50\.2 for {purpose}"):
        begin(stage.spec, stage.locations["base"])


@pytest.mark.parametrize(("changes", "purpose"), USES)
def test_a_version_that_is_in_no_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str],
                                                purpose: str) -> None:
    installed("", monkeypatch)
    stage = planned(tmp_path, **changes)
    installed("0.51.0", monkeypatch)
    with pytest.raises(UserError, match=rf"planned where it is not installed(.|\n)*{purpose}(.|\n)*bitsandbytes==0\.51\.0"):
        begin(stage.spec, stage.locations["base"])


def test_who_only_predicts_from_a_quantised_base_needs_the_version_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("0.50.2", monkeypatch)
    stage = planned(tmp_path, quantization="nf4")
    installed("0.51.0", monkeypatch)
    for dequantized in (False, True):
        with pytest.raises(UserError, match=r"planned with 0\.50\.2 for quantization: nf4"):
            loaded(stage.spec, stage.locations["base"], dequantized=dequantized)


def test_without_the_package_a_study_is_planned_and_the_run_says_what_to_install(tmp_path: Path,
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    installed("", monkeypatch)
    monkeypatch.setattr(quantized, "PACKAGE", "bitsandbytes_that_is_not_here")
    stage = planned(tmp_path, quantization="nf4")
    with pytest.raises(MissingPackage, match=r"quantization: nf4 and is not installed\n.*finetrial\[qlora\]"):
        begin(stage.spec, stage.locations["base"])
