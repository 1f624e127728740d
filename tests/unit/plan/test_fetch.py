"""Bases and data of the hub, fetched before a study is planned: from the loopback hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import Fault, LoopbackHub
from tiny_study import tiny_content

from finetrial.cli.fetching import fetch_command
from finetrial.cli.study import Changes
from finetrial.errors import ModelError, UserError
from finetrial.plan.bases import resolve_base
from finetrial.plan.build import build
from finetrial.plan.fetch import fetch_study
from finetrial.spec.io import parse_study
from finetrial.spec.study import Study
from finetrial.spec.uses import Base

MODEL, PROBLEMS = "owner/tiny", "openai/openai_humaneval"
HUB_BASE = {"name": "tiny", "source": MODEL}


@pytest.fixture
def content(hub: LoopbackHub, tmp_path: Path) -> dict[str, Any]:
    """The tiny study, its base and the task that is only scored from the hub."""
    content = tiny_content(tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    hub.add("model", MODEL, {**files, "README.md": b"#", "onnx/model.safetensors": b"other", "pytorch_model.bin": b"x"})
    hub.add("dataset", PROBLEMS, {"openai_humaneval/test-0.parquet": b"not read before the data stage"})
    content["tasks"][1] = {"name": "problems", "task": "humaneval", "role": "outside", "num_test": 4, "max_new_tokens": 8}
    return {**content, "bases": [HUB_BASE], "controls": None}


def parsed(content: dict[str, Any]) -> Study:
    return parse_study(content, "study")


def test_everything_is_fetched_once(content: dict[str, Any], hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    origins = fetch_study(parsed(content), say=said.append)
    commits = {kind: hub.repositories[kind, name].refs["main"] for kind, name in (("model", MODEL), ("dataset", PROBLEMS))}
    assert f"at commit {commits['model']} (main)" in origins["base tiny"]
    assert f"at commit {commits['dataset']} (main)" in origins["task problems"]
    assert any(line.startswith(f"{MODEL}: model.safetensors (") for line in said)
    assert not any("onnx" in request or ".bin" in request for request in hub.requests)
    _offline(monkeypatch)
    hub.requests.clear()
    assert fetch_study(parsed(content), say=said.append) == origins
    assert hub.requests == []


def test_a_base_of_the_hub_is_the_same_as_its_files(content: dict[str, Any], tmp_path: Path, hub: LoopbackHub) -> None:
    plan = build(parsed(content), relative_to=tmp_path)
    local = build(parsed({**content, "bases": [{"name": "tiny", "source": "./model"}]}), relative_to=tmp_path)
    assert plan.keys() == local.keys()
    commit = hub.repositories["model", MODEL].refs["main"]
    assert commit in plan.describe()["origins"]["tiny"] and local.describe()["origins"] == {}


def test_a_branch_that_moves_on_is_not_followed(content: dict[str, Any], tmp_path: Path, hub: LoopbackHub) -> None:
    first = build(parsed(content), relative_to=tmp_path).keys()
    files = dict(hub.repositories["model", MODEL].commits[hub.repositories["model", MODEL].refs["main"]])
    moved = hub.add("model", MODEL, {**files, "config.json": files["config.json"] + b"\n"})
    assert build(parsed(content), relative_to=tmp_path).keys() == first
    named = parsed({**content, "bases": [{**HUB_BASE, "revision": moved}]})
    assert build(named, relative_to=tmp_path).keys() != first


def test_a_fetch_that_breaks_off_goes_on(content: dict[str, Any], hub: LoopbackHub) -> None:
    hub.fault(Fault("model.safetensors", 503))
    with pytest.raises(ModelError, match=r"base 'tiny': .*model.safetensors"):
        fetch_study(parsed(content))
    hub.faults.clear()
    hub.requests.clear()
    fetch_study(parsed(content))
    assert not any(request == f"GET /{MODEL}/resolve/main/config.json" for request in hub.requests)


def test_offline_before_the_first_fetch(content: dict[str, Any], hub: LoopbackHub,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    _offline(monkeypatch)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE=1") as caught:
        fetch_study(parsed(content))
    assert "source: ./folder" in caught.value.mend and hub.requests == []


@pytest.mark.parametrize(("base", "said"), [
    ({"source": "owner/none"}, "no folder owner/none here, and model owner/none is not on the hub"),
    ({"source": MODEL, "revision": "v9"}, "no revision 'v9'"),
    ({"source": "./nothing"}, "no folder at"), ({"source": "a/b/c"}, "no folder at"),
    ({"source": "owner/pickled"}, r"has no file model\*\.safetensors")])
def test_what_the_hub_cannot_give(base: dict[str, str], said: str, content: dict[str, Any], hub: LoopbackHub) -> None:
    hub.add("model", "owner/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(ModelError, match=said):
        resolve_base(Base(name="x", **base))


def test_a_gated_base(content: dict[str, Any], hub: LoopbackHub) -> None:
    hub.gate("model", MODEL)
    with pytest.raises(UserError, match="is gated") as caught:
        fetch_study(parsed(content))
    assert f"{hub.endpoint}/{MODEL}" in caught.value.mend


def test_the_command(content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.json").write_text(json.dumps(content))
    fetch_command(str(tmp_path / "study.json"), Changes())
    printed = capsys.readouterr()
    assert "base tiny" in printed.out and "task problems" in printed.out and f"{MODEL}: config.json (" in printed.err
    fetch_command("perplexity", Changes())
    assert "nothing to fetch" in capsys.readouterr().out


def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
