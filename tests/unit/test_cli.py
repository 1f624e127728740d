"""The command line: what a mistake gets, what a command prints, how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from synthetic import make_study, make_table
from tiny_study import make_run, tiny_content

from finetrial import __version__
from finetrial.analysis.analyse import analyse
from finetrial.api import open_run
from finetrial.cli import main, planning
from finetrial.cli.study import Changes, built_in_studies, find_study
from finetrial.errors import SpecError, UserError
from finetrial.plan.build import build
from finetrial.records.record import Environment, Outcome, Record
from finetrial.run import machine
from finetrial.run.trial import Trial
from finetrial.spec.io import study_yaml

ROOT = Path(__file__).parents[2]
COMMANDS = ("run", "plan", "studies", "show", "status", "profile", "report", "data", "pretrain", "doctor", "schema")
OTHER = Environment(device="cpu", torch="0.0", transformers="0", peft="0", cpu_capability="TEST")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def finished(tmp_path: Path) -> Trial:
    """A run that was supported, with the files that `show` and `report` read."""
    study, table = make_table("supported")
    folder = tmp_path / "runs" / "synthetic-custom-standard"
    folder.mkdir(parents=True)
    trial = Trial(folder, study, analyse(study, table))
    (folder / "study.yaml").write_text(study_yaml(study), encoding="utf-8")
    (folder / "results.json").write_text(trial.results.model_dump_json(), encoding="utf-8")
    return trial


@pytest.mark.parametrize(("option", "said"), [
    ("--base", "unknown base 'xxx' (known: tiny)"), ("--sequence", "unknown sequence 'xxx' (known: new)")])
def test_generate_refuses_what_the_study_does_not_have_before_it_prints(capsys, finished, tmp_path, option, said):
    (finished.folder / "run.json").write_text(json.dumps(
        {"device": "cpu", "store": "x", "command": "", "relative_to": str(tmp_path)}))
    assert main(["generate", finished.folder.name, "--prompt", "w3", option, "xxx"]) == 2
    printed, refused = capsys.readouterr()
    assert not printed and said in refused and "name one that the study has, or none for the first" in refused


def test_show_of_a_run_finds_the_plug_ins_where_the_run_did(capsys, finished, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "loud.py").write_text("from finetrial.methods.lora import Lora\nclass Loud(Lora):\n    pass\n")
    copy = finished.folder / "study.yaml"
    copy.write_text(copy.read_text(encoding="utf-8") + "plugins: [./loud.py]\n", encoding="utf-8")
    (finished.folder / "run.json").write_text(json.dumps(
            {"device": "cpu", "store": "x", "command": "", "relative_to": str(tmp_path / "mine")}))
    assert main(["show", finished.folder.name]) == 0
    assert "SUPPORTED" in capsys.readouterr().out
    assert open_run(finished.folder).study.plugins == ("./loud.py",)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The text of a mistake: exit code 2, on standard error, no traceback."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


# --- mistakes

def test_unknown_study_names_the_nearest(capsys):
    assert "did you mean 'perplexity'" in mistake(capsys, "run", "perplexty")


@pytest.mark.parametrize("command", ["run", "plan", "data"])
def test_unknown_study_is_a_mistake_everywhere(capsys, command):
    error = mistake(capsys, command, "no-such-thing")
    assert error.startswith("error: unknown study 'no-such-thing'")
    assert "finetrial studies" in error


def test_unknown_size_names_those_there_are(capsys):
    assert "unknown size at the scale embedded 'dem'; did you mean 'demo'" in mistake(capsys, "plan", "perplexity", "--size", "dem")


def test_unknown_key_through_set_names_path_and_nearest(capsys):
    error = mistake(capsys, "run", "perplexity", "--set", "training.batch_sequence=3")
    assert "training.batch_sequence" in error
    assert "did you mean 'batch_sequences'" in error


def test_every_problem_is_told_at_once(capsys):
    error = mistake(capsys, "plan", "perplexity", "--set", "training.clip=1", "--set", "seeds=[x]")
    assert "2 problems" in error
    assert "training.clip" in error
    assert "seeds.0: 'x'" in error


def test_set_of_a_value_that_is_no_yaml(capsys):
    assert "is not YAML" in mistake(capsys, "plan", "perplexity", "--set", "seeds=[0, 1")


@pytest.mark.parametrize("assignment", ["training.batch_sequences", "=3"])
def test_set_without_key_and_value(capsys, assignment):
    assert "key=value" in mistake(capsys, "plan", "perplexity", "--set", assignment)


def test_set_of_an_unknown_item_names_those_there_are(capsys):
    error = mistake(capsys, "plan", "perplexity", "--set", "arms.lora-r9.learning_rates=[1]")
    assert "did you mean 'lora-r8'" in error


def test_bad_yaml_names_file_and_line(capsys):
    Path("mine.yaml").write_text("name: mine\narms: [a, b\n", encoding="utf-8")
    error = mistake(capsys, "run", "mine.yaml")
    assert "mine.yaml is not valid YAML" in error
    assert "line 3" in error


def test_yaml_that_is_no_study(capsys):
    Path("mine.yaml").write_text("- a\n- b\n", encoding="utf-8")
    assert "holds a list" in mistake(capsys, "plan", "mine.yaml")


def test_study_file_that_does_not_exist(capsys):
    assert "study file absent.yaml does not exist" in mistake(capsys, "run", "absent.yaml")


def test_size_does_not_go_with_a_file(capsys):
    Path("mine.yaml").write_text(study_yaml(make_study()), encoding="utf-8")
    assert "--size demo does not go with" in mistake(capsys, "plan", "mine.yaml", "--size", "demo")


def test_unknown_option_names_the_nearest(capsys):
    assert "--size" in mistake(capsys, "run", "perplexity", "--sise", "demo")


def test_unknown_command_names_the_nearest(capsys):
    assert "'run'" in mistake(capsys, "runn")


@pytest.mark.parametrize("seeds", ["many", "", "1,x", "0", "²"])
def test_seeds_that_are_none(capsys, seeds):
    assert "--seeds" in mistake(capsys, "plan", "perplexity", "--seeds", seeds)


def test_unknown_arm_names_the_nearest(capsys):
    assert "did you mean 'lora-r8'" in mistake(capsys, "plan", "perplexity", "--arms", "full,lora-r9")


def test_arms_without_the_one_that_controls_need(capsys):
    error = mistake(capsys, "plan", "perplexity", "--arms", "lora-r8")
    assert "leaves out 'full'" in error
    assert "--arms full,lora-r8" in error


def test_a_pair_of_arms_keeps_the_hypotheses_about_it(capsys):
    """Members of `any_of` may be lists."""
    assert main(["plan", "plasticity-stability", "--arms", "full-full,lora-lora", "--json"]) == 0
    study = json.loads(capsys.readouterr().out)
    assert "H2a" in json.dumps(study) and "H2c is not asked" in json.dumps(study)


@pytest.mark.parametrize(("option", "value"), [("--max-trainable", "0.5"), ("--max-trainable", "200%"), ("--max-memory", "0GB")])
def test_limits_that_are_none(capsys, option, value):
    error = mistake(capsys, "compare", "--model", "tiny-gpt", "--learn", "x.txt", option, value)
    assert f"{option} '{value}'" in error


def test_more_seeds_and_seeds_are_one_too_many(capsys):
    assert "give one of them" in mistake(capsys, "run", "perplexity", "--seeds", "3", "--more-seeds", "2")


def test_keep_columns_without_keep(capsys):
    assert "there is no --keep" in mistake(capsys, "compare", "--model", "tiny-gpt", "--learn", "x.txt", "--keep-columns", "text=body")


def test_data_is_looked_for_beside_the_study(tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "study.yaml").write_text(yaml.safe_dump(tiny_content(tmp_path / "sub")))
    assert main(["data", "sub/study.yaml"]) == 0
    assert "rows" in capsys.readouterr().out


def test_a_folder_of_a_studys_name_is_no_run(tmp_path, capsys):
    (tmp_path / "hybrid").mkdir()
    assert main(["show", "hybrid"]) == 0
    assert "name: hybrid" in capsys.readouterr().out
    assert "there is no run 'hybrid'" in mistake(capsys, "status", "hybrid")


def test_unknown_threat(capsys):
    assert "unknown threat" in mistake(capsys, "plan", "perplexity", "--accept-threat", "bad-luck")


def test_unknown_run_lists_those_there_are(capsys, finished):
    assert "synthetic-custom-standard" in mistake(capsys, "report", "synthetic-custom-standart")


def test_show_of_results_that_cannot_be_read(capsys, finished):
    (finished.folder / "results.json").write_text("{", encoding="utf-8")
    assert "finetrial report" in mistake(capsys, "show", str(finished.folder))


def test_a_file_system_that_refuses_is_no_bug(capsys, monkeypatch):
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/runs")

    monkeypatch.setattr("finetrial.cli.showing.studies_command", refuse)
    assert "Permission denied: /runs" in mistake(capsys, "studies")


# --- other ends

def test_ctrl_c_says_how_to_resume(capsys, monkeypatch):
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("finetrial.cli.showing.studies_command", stop)
    assert main(["studies"]) == 130
    assert "stopped; run the same command to resume" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_is_one_line_and_a_log(capsys, monkeypatch, debug):
    def break_down(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("one over none")

    monkeypatch.setattr("finetrial.cli.running.run_command", break_down)
    assert main(["run", "perplexity", *(["--log-level", "debug"] if debug else [])]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError: one over none" in error
    assert ("Traceback" in error) is debug
    log = Path(re.search(r"traceback is in (\S+)", error)[1])
    assert "break_down" in log.read_text(encoding="utf-8")
    log.unlink()


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"finetrial {__version__}\n"


# --- what is changed in a study

def test_underscores_and_dashes_are_one(monkeypatch):
    monkeypatch.setattr("finetrial.catalog._package_modules", lambda kind: {"a-b": "finetrial.studies.perplexity"}
                        if kind == "study" else {})
    from finetrial import catalog

    assert catalog.find("study", "a_b") is catalog.find("study", "a-b")


@pytest.mark.parametrize("assignment", ["training=x", "arms=x", "arms.0=x", "accept_threats=3"])
def test_a_plain_value_in_the_place_of_keys_is_told_whatever_else_is_asked(assignment):
    with pytest.raises(SpecError):
        find_study("perplexity", Changes(assignments=(assignment,), precision="bf16", accept=("few-seeds",)))


def test_seeds_by_number_and_by_list():
    assert find_study("perplexity", Changes(seeds="4")).study.seeds == (0, 1, 2, 3)
    assert find_study("perplexity", Changes(seeds="7,9")).study.seeds == (7, 9)
    assert find_study("perplexity", Changes(seeds="7,")).study.seeds == (7,)


def test_set_reaches_list_items_by_name():
    changes = Changes(assignments=("arms.full.learning_rates=[0.1]", "training.batch_sequences=3"))
    study = find_study("perplexity", changes).study
    assert study.arm("full").learning_rates == (0.1,)
    assert study.training.batch_sequences == 3


def test_precision_reaches_arms_with_a_training_of_their_own():
    changes = Changes(assignments=("arms.full.training={sequence_length: 64}",), precision="bf16")
    study = find_study("perplexity", changes).study
    assert study.training.precision == "bf16"
    assert study.training_of(study.arm("full")).precision == "bf16"


def test_fewer_arms_ask_fewer_hypotheses_and_say_so():
    study = find_study("perplexity", Changes(arms="full, lora-r8")).study
    assert [arm.name for arm in study.arms] == ["full", "lora-r8"]
    assert "H2" not in [hypothesis.name for hypothesis in study.hypotheses]
    assert any("H2 is not asked" in note for note in study.notes)


def test_the_arm_that_another_is_matched_to_is_kept():
    with pytest.raises(UserError, match="leaves out 'layer', to which lora-matched is matched"):
        find_study("lora-vs-layer", Changes(arms="lora-r8,lora-matched"))
    study = find_study("lora-vs-layer", Changes(arms="lora-r8,lora-matched,layer")).study
    assert [arm.name for arm in study.arms] == ["lora-r8", "lora-matched", "layer"]


def test_another_base_takes_the_place_of_the_study_s(tmp_path):
    folder = tmp_path / "My Model"
    folder.mkdir()
    study = find_study("lora-vs-layer", Changes(base=str(folder))).study
    assert [(base.name, base.source) for base in study.bases] == [("My-Model", str(folder))]
    assert study.name == "lora-vs-layer-my-model" and not any("tiny-gpt" in note for note in study.notes)
    assert [arm.name for arm in study.arms] == [arm.name for arm in find_study("lora-vs-layer").study.arms]
    (base,) = find_study("perplexity", Changes(base="openai-community/gpt2@main")).study.bases
    assert (base.name, base.source, base.revision) == ("gpt2", "openai-community/gpt2", "main")
    with pytest.raises(UserError, match="--base takes a folder, or a repository of the hub with its owner"):
        find_study("perplexity", Changes(base="gpt3"))


def test_a_contrast_that_names_the_base_follows_it(tmp_path):
    written = find_study("perplexity", Changes(size="demo")).study.model_dump(mode="json", exclude_defaults=True)
    written["hypotheses"][0]["contrast"]["base"] = "tiny-gpt"
    (tmp_path / "mine.json").write_text(json.dumps(written))
    (tmp_path / "other").mkdir()
    study = find_study(str(tmp_path / "mine.json"), Changes(base=str(tmp_path / "other"))).study
    assert study.hypotheses[0].contrast.base == "other"
    written.update(bases=["tiny-gpt", {"name": "other", "source": str(tmp_path)}], hypotheses=[])
    (tmp_path / "mine.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="the study has 2 bases"):
        find_study(str(tmp_path / "mine.json"), Changes(base=str(tmp_path / "other")))


def test_no_change_gives_the_study_as_written():
    assert find_study("perplexity").study == built_in_studies()["perplexity"]().study("embedded", "standard")


# --- what is printed

def test_everything_fits_80_columns(capsys, finished):
    commands = [["--help"], *([command, "--help"] for command in COMMANDS), ["studies"], ["status"],
                ["plan", "perplexity"], ["plan", "perplexity", "--size", "thorough", "--seeds", "2"],
                ["show", finished.folder.name]]
    for arguments in commands:
        assert main(arguments) == 0, arguments
        wide = [line for line in capsys.readouterr().out.splitlines() if len(line) > 80]
        assert not [line for line in wide if not line.startswith("report: ")], arguments


def test_plan_shows_grid_parameters_and_stages(capsys):
    assert main(["plan", "perplexity", "--size", "demo"]) == 0
    text = capsys.readouterr().out
    for words in ("LoRA r=8, attention", "1e-4 3e-4 1e-3", "A/A: full-aa", "H4"):
        assert words in text
    assert re.search(r"^train +24 +0 +24$", text, re.MULTILINE)


def test_plan_counts_what_the_store_holds(capsys, monkeypatch):
    """A record of the class that a run here would have counts; one of another environment class is told, and does not; nor
    does that of a failure."""
    monkeypatch.setattr(machine, "may_have_accelerator", lambda: False)
    monkeypatch.setattr(planning, "known_cpu_capability", lambda: "TEST")
    study = find_study("perplexity", Changes(size="demo")).study
    plan = build(study)
    stages = [stage for stage in plan.stages if stage.kind == "data"]
    ours = OTHER.model_copy(update={name: __import__("importlib.metadata").metadata.version(name)
                                    for name in ("torch", "transformers", "peft")})
    keys = plan.keys()
    write_record("runs/.store", "data", keys[stages[0].id], ours, Outcome.OK)
    others = [OTHER, *(ours.model_copy(update=change) for change in ({"device": "cuda"}, {"cpu_capability": "AVX2"}))]
    for other in others:
        write_record("runs/.store", "data", keys[stages[1].id], other, Outcome.OK)
    train = next(stage for stage in plan.stages if stage.kind == "train")
    write_record("runs/.store", "train", keys[train.id], ours, Outcome.FAILED)
    assert main(["plan", "perplexity", "--size", "demo", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kinds = {row["kind"]: row for row in printed["kinds"]}
    told = [note.partition(": results of another kind of machine or other versions are never mixed in")[0]
            for note in printed["notes"] if "recorded" in note]
    versions = f"torch 0.0 instead of {ours.torch}, transformers 0 instead of {ours.transformers}, peft 0 instead of {ours.peft}"
    assert sorted(told) == sorted(f"1 stage is recorded with {differences}" for differences in (
        versions, "device cuda instead of cpu", "cpu_capability AVX2 instead of TEST"))
    assert (kinds["data"]["planned"], kinds["data"]["recorded"]) == (2, 1)
    assert kinds["train"]["recorded"] == 0
    assert main(["plan", "perplexity", "--size", "demo", "--json", "--device", "cuda"]) == 0
    kinds = {row["kind"]: row for row in json.loads(capsys.readouterr().out)["kinds"]}
    assert kinds["data"]["recorded"] == 1, "the one of the GPU"


def write_record(store: str, kind: str, key: str, environment: Environment, outcome: Outcome) -> None:
    record = Record(key=key, stage_id="s", kind=kind, identity={}, environment=environment, outcome=outcome,
                    started="2026-01-01T00:00:00+00:00", seconds=1.0)
    folder = Path(store, kind, key[:2], f"{key}-{environment.key()}")
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(record.model_dump_json(), encoding="utf-8")


def test_show_prints_a_study_that_can_be_read_back(capsys):
    assert main(["show", "perplexity", "--size", "demo"]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert find_study("mine.yaml").study == find_study("perplexity", Changes(size="demo")).study


def test_show_of_a_run_prints_its_answers(capsys, finished):
    assert main(["show", finished.folder.name]) == 0
    text = capsys.readouterr().out
    for words in ("SUPPORTED", "Recommendation", "Positive control: seen", "Scores", "report: "):
        assert words in text


@pytest.mark.parametrize("what", ["study", "results"])
def test_schema_is_json(capsys, what):
    assert main(["schema", what]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_run_ends_with_verdicts_and_the_report(capsys, monkeypatch, finished):
    asked = {}

    def fake(study, options, *, relative_to, command):
        asked.update(study=study, options=options, relative_to=relative_to, command=command)
        return finished

    monkeypatch.setattr("finetrial.run.trial.run_study", fake)
    arguments = ["run", "perplexity", "--size", "demo", "--jobs", "1", "--timeout", "2", "--set", "notes=[a b]"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"report: {finished.folder / 'report.html'}"
    assert any(line.startswith("H1  SUPPORTED") for line in lines)
    assert asked["options"].timeout_seconds == 120
    assert asked["options"].jobs == 1
    assert asked["study"].notes == ("a b",)
    assert asked["command"] == "finetrial run perplexity --size demo --jobs 1 --timeout 2 --set 'notes=[a b]'"


def test_a_run_without_an_arm_that_finished_ends_with_its_cause(capsys, monkeypatch, finished):
    failed = replace(finished, failure=UserError("no arm could be trained: 4 of 4 stages ended with FAILED: no room", "make room"))
    monkeypatch.setattr("finetrial.run.trial.run_study", lambda *arguments, **more: failed)
    assert main(["run", "perplexity", "--size", "demo"]) == 2
    printed = capsys.readouterr()
    assert "report: " in printed.out and printed.err.endswith("FAILED: no room\n  make room\n")


def test_trackers_are_checked_before_and_written_after_the_run(capsys, monkeypatch, finished):
    done = []
    monkeypatch.setattr("finetrial.run.trial.run_study", lambda *arguments, **more: done.append("run") or finished)
    monkeypatch.setattr("finetrial.run.tracking.find_spec", lambda name: name)
    monkeypatch.setattr("finetrial.run.tracking.track", lambda folder, names, warn: done.append((folder, names)))
    assert "unknown tracker 'mlfow'; did you mean 'mlflow'" in mistake(capsys, "run", "perplexity", "--track", "mlfow")
    assert done == []
    assert main(["run", "perplexity", "--track", "mlflow, wandb"]) == 0
    assert done == ["run", (finished.folder, ("mlflow", "wandb"))]


def test_run_of_a_file_knows_its_folder(capsys, monkeypatch, finished, tmp_path):
    asked = {}
    monkeypatch.setattr("finetrial.run.trial.run_study",
                        lambda study, options, **more: asked.update(more) or finished)
    Path("sub").mkdir()
    Path("sub/mine.yaml").write_text(study_yaml(make_study()), encoding="utf-8")
    assert main(["run", "sub/mine.yaml"]) == 0
    assert asked["relative_to"] == tmp_path / "sub"


def test_an_accelerator_that_is_not_used_warns(capsys, monkeypatch, finished):
    monkeypatch.setattr(machine, "accelerators", lambda: ["NVIDIA H200"])
    monkeypatch.setattr("finetrial.run.trial.run_study", lambda *arguments, **more: finished)
    assert main(["run", "perplexity", "--device", "cpu"]) == 0
    assert "warning: NVIDIA H200 is here and is not used" in capsys.readouterr().err


@pytest.mark.parametrize(("version", "warns"), [("2.13.0+cpu", True), ("2.13.0+cu130", False)])
def test_a_build_of_torch_without_the_accelerator_warns(monkeypatch, version, warns):
    monkeypatch.setattr(machine, "accelerators", lambda: ["NVIDIA H200"])
    monkeypatch.setattr(machine, "torch_version", lambda: version)
    assert bool(machine.unused_accelerator("auto")) is warns


def test_status_of_a_run_that_was_killed(capsys, finished):
    status = {"state": "running", "pid": 1, "stages_total": 10, "stages_done": 4, "stages_reused": 1,
              "failures": {"OOM": 1}, "running": [], "elapsed_seconds": 9.0, "left_seconds": 60.0,
              "left_is_at_least": False, "damaged": []}
    (finished.folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    assert main(["status"]) == 0
    assert re.search(r"interrupted +4/10 +1$", capsys.readouterr().out, re.MULTILINE)
    assert main(["status", finished.folder.name]) == 0
    assert "run the same command again to go on" in capsys.readouterr().out


def test_commands_that_are_offered_work_where_the_runs_lie(capsys, monkeypatch, tmp_path):
    elsewhere = tmp_path / "my runs"
    (elsewhere / ".store").mkdir(parents=True)
    assert main(["status", "--runs", str(elsewhere)]) == 0
    assert f"--size demo --runs '{elsewhere}'" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr("finetrial.run.garbage.unused", lambda *_: ([SimpleNamespace(kind="train", num_bytes=5e6)], []))
    assert main(["gc", "--runs", str(elsewhere)]) == 0
    assert f"would be freed: finetrial gc --yes --runs '{elsewhere}'\n" in capsys.readouterr().out
    assert main(["gc", "--store", str(elsewhere / ".store")]) == 0
    assert f"would be freed: finetrial gc --yes --store '{elsewhere / '.store'}'\n" in capsys.readouterr().out
    folder = make_run(tmp_path / "project")
    assert f"finetrial status {folder} shows" in mistake(capsys, "show", folder.name, "--runs", str(folder.parent))
    said = mistake(capsys, "generate", str(folder), "--prompt", "w1", "--arms", "lora")
    assert "unknown arm 'lora'" in said and "lora-r2" in said and "finetrial show" not in said


def test_status_tells_what_failed_from_what_was_not_run(capsys, finished):
    status = {"state": "partial", "pid": 1, "stages_total": 136, "stages_done": 40, "stages_reused": 0,
              "failures": {"FAILED": 36, "OOM": 2, "not run": 96}, "running": [], "elapsed_seconds": 9.0,
              "left_seconds": None, "left_is_at_least": None, "damaged": []}
    (finished.folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    assert main(["status"]) == 0
    assert re.search(r"Failed +Not run.*\n.*partial +40/136 +38 +96$", capsys.readouterr().out, re.MULTILINE)
    assert main(["status", finished.folder.name]) == 0
    assert "not run: 96; what they need failed" in capsys.readouterr().out


def test_data_marks_what_is_scored(capsys):
    """Counts per split, and rows of a user's own file with brackets around the scored text."""
    rows = "".join(json.dumps({"prompt": f"question {number}\n", "completion": f"answer {number}"}) + "\n"
                   for number in range(60))
    Path("rows.jsonl").write_text(rows, encoding="utf-8")
    Path("mine.yaml").write_text(f"""
name: mine
question: what?
bases: [tiny-gpt]
tasks: [{{name: qa, task: {{kind: prompt-completion, path: {Path('rows.jsonl').resolve()}}}, num_val: 2, num_test: 2}}]
arms: [{{name: full, components: full, learning_rates: [0.001]}}]
training: {{sequence_length: 32}}
""", encoding="utf-8")
    assert main(["data", "mine.yaml", "--rows", "2"]) == 0
    text = capsys.readouterr().out
    assert "qa (learned)" in text
    assert "scored tokens" in text
    assert len(re.findall(r"question \d+\n\s*⟦answer \d+<\|endoftext\|>⟧", text)) == 2
    assert "prompts cut" not in text
    written = Path("mine.yaml").read_text(encoding="utf-8").replace("num_val: 2", "num_val: 2, metrics: [chrf], max_new_tokens: 30")
    Path("mine.yaml").write_text(written, encoding="utf-8")
    assert main(["data", "mine.yaml"]) == 0
    assert re.search(r"prompts cut\n.*train.*\n.*val +2 .* 2\n.*test +2 .* 2\n", capsys.readouterr().out)  # 2 places are left


def test_doctor_ends_with_1_if_a_check_fails(capsys, monkeypatch):
    from finetrial.run.doctor import Check

    checks = [Check("disk", "ok", "enough"), Check("store", "fail", "no", "mend it")]
    monkeypatch.setattr("finetrial.cli.doctor.examine", lambda store, network: iter(checks))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "fail  store       no\n                  mend it" in text
    assert "1 well, 0 with a warning, 1 failed" in text


def test_doctor_goes_on_when_a_check_breaks(monkeypatch, tmp_path):
    from finetrial.run import doctor

    def broken() -> None:
        raise ImportError("no torch")

    for name in ("_memory", "_devices", "_workers", "_corpus"):
        monkeypatch.setattr(doctor, name, broken)
    monkeypatch.setattr("finetrial.run.smoke.training_checks", broken)
    checks = list(doctor.examine(tmp_path / "store"))
    assert {check.name: check.state for check in checks}["store"] == "ok"
    assert [check.text for check in checks if check.name == "training"] == ["ImportError: no torch"]


def test_doctor_starts_a_worker_that_records(monkeypatch):
    from finetrial.run import doctor, local

    monkeypatch.setattr(local, "default_preload", lambda: ())  # the libraries, which take seconds
    assert [(check.name, check.state) for check in doctor._workers()] == [("workers", "ok")]


def test_the_documented_help_is_the_help():
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "make_cli.py"), "--check"], capture_output=True,
                          text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr


def test_plan_says_what_fits_on_a_device(capsys):
    assert main(["plan", "perplexity", "--size", "demo", "--device", "100MB", "--rate", "1TFLOPS"]) == 0
    shown = capsys.readouterr().out
    assert "does not fit" in shown and "micro-batch 2 (a run" in shown and "by the given rate" in shown
    assert main(["plan", "perplexity", "--size", "demo", "--device", "this"]) == 0
    assert "this machine" in capsys.readouterr().out
    assert "neither a device nor an amount of memory" in mistake(capsys, "plan", "perplexity", "--device", "gpu0")
    assert "is no rate of operations" in mistake(capsys, "plan", "perplexity", "--rate", "fast")


def test_data_refuses_splits_with_too_few_rows_after_showing_them(tmp_path, capsys):
    rows = [{"prompt": f"What is {n} plus {7 * n}?", "completion": f"It is {8 * n}, of course, {n}."} for n in range(80)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({
        "name": "s", "question": "?", "bases": ["tiny-gpt"], "training": {"budget": "10 steps"},
        "tasks": [{"name": "new", "task": {"kind": "prompt-completion", "path": "a.jsonl"}}],
        "arms": [{"name": "full", "components": "full", "learning_rates": [1e-4]}]}))
    assert main(["data", str(tmp_path / "s.yaml")]) != 0
    shown = capsys.readouterr()
    assert "training row 1 of" in shown.out
    assert re.search(r"new: split 'val' has \d+ usable rows, and 100 are asked for", shown.err)
    assert re.search(r"new: lower num_val to at most \d+, .*; new: lower num_test", " ".join(shown.err.split()))
