"""What is exported from a run's folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_study import make_run

from finetrial.errors import UserError
from finetrial.run.adapters import NoWeights, check_room, check_which, export, find_trained
from finetrial.spec.io import read_study


def test_an_arm_lies_along_its_own_sequence(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    study = yaml.safe_load((folder / "study.yaml").read_text())
    study["sequences"] = [{"name": "first", "tasks": ["new"]}, {"name": "second", "tasks": ["new"]}]
    study["hypotheses"] = []
    next(arm for arm in study["arms"] if arm["name"] == "lora-r2")["sequences"] = ["second"]
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    trained = folder / "artifacts" / "mine" / "lora-r2" / "second" / "seed-0" / "phase-0-new"
    trained.mkdir(parents=True)
    assert find_trained(folder, "lora-r2").folder == trained == find_trained(folder, "lora-r2", base="mine", sequence="second").folder
    with pytest.raises(NoWeights, match="lora-r2 does not go along first"):
        find_trained(folder, "lora-r2", sequence="first")
    for which in ({"base": "yours"}, {"sequence": "typo"}):
        with pytest.raises(UserError, match="unknown ") as refused:
            find_trained(folder, "lora-r2", **which)
        with pytest.raises(UserError) as expected:
            check_which(read_study(folder / "study.yaml", tmp_path / "project"), **which)
        assert str(refused.value) == str(expected.value) and not isinstance(refused.value, NoWeights)


def test_what_has_no_room_in_the_model_is_told_with_the_tokens_that_have(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    check_room(folder, "w1 w2 w3", 61)
    with pytest.raises(UserError, match=r"3 tokens and up to 5,000 .* 64 positions\n  --tokens at most 61"):
        check_room(folder, "w1 w2 w3", 5000)
    with pytest.raises(UserError, match="cut the prompt to less than 64 tokens"):
        check_room(folder, "w1 " * 64, 1)
    with pytest.raises(UserError, match="the prompt is empty"):
        check_room(folder, "", 1)


def test_an_export_is_a_copy_that_may_be_edited(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    sequence = read_study(folder / "study.yaml").paths[0].name
    trained = folder / "artifacts" / "mine" / "lora-r2" / sequence / "seed-0" / "phase-0-new"
    (trained / "instance").mkdir(parents=True)
    stored = tmp_path / "stored"
    trained_text = '{"peft_type": "LORA", "base_model_name_or_path": null}'
    stored.write_text(trained_text)
    os.link(stored, trained / "instance" / "adapter_config.json")
    assert find_trained(folder, "lora-r2").folder == trained
    results = {"tuning": [{"base": "mine", "arm": "lora-r2", "sequence": sequence, "phase": 0, "seed": 0, "chosen": 0.01}]}
    (folder / "results.json").write_text(json.dumps(results))
    done = export(folder, "lora-r2", tmp_path / "out", merged=False, command="finetrial export")
    model = tmp_path / "project" / "model"
    assert done.loading == (f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{model}"), "{tmp_path}/out/instance")',
                            f'AutoTokenizer.from_pretrained("{model}")')
    written = json.loads((tmp_path / "out" / "instance" / "adapter_config.json").read_text())
    assert written == {"peft_type": "LORA", "base_model_name_or_path": str(model)}
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (f"Base: {model}", "Learning rate: 1e-2, which validation chose.", '"DIR/instance")'):
        assert words in card
    (tmp_path / "out" / "instance" / "adapter_config.json").write_text("edited")
    assert stored.read_text() == trained_text and (tmp_path / "out" / "README.md").is_file()


def test_a_whole_model_is_exported_with_its_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = make_run(tmp_path / "project")
    trained = folder / "artifacts" / "mine" / "full" / read_study(folder / "study.yaml").paths[0].name / "seed-0" / "phase-0-new"
    shutil.copytree(tmp_path / "project" / "model", trained / "main", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    held = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    done = export(folder, "full", tmp_path / "out", merged=False, command="finetrial export")
    main = tmp_path / "out" / "main"
    assert done.loading == (f'AutoModelForCausalLM.from_pretrained("{main}")', f'AutoTokenizer.from_pretrained("{main}")')
    assert len(AutoTokenizer.from_pretrained(main)("w1 w2")["input_ids"]) == 2
    assert held == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


def test_weights_beside_others_and_parts_are_not_loaded_by_themselves(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    trained = folder / "artifacts" / "mine" / "lora-r2" / read_study(folder / "study.yaml").paths[0].name / "seed-0" / "phase-0-new"
    for name in ("first", "second"):
        (trained / name).mkdir(parents=True)
        (trained / name / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    done = export(folder, "lora-r2", tmp_path / "out", merged=False, command="finetrial export")
    assert f'PeftModel.from_pretrained(base, "{tmp_path}/out/second")' in done.loading
    assert "null" in (tmp_path / "out" / "first" / "adapter_config.json").read_text()
    shutil.rmtree(trained)
    (trained / "blocks").mkdir(parents=True)
    (trained / "blocks" / "recipe.json").write_text("{}")
    done = export(folder, "lora-r2", tmp_path / "parts", merged=False, command="finetrial export")
    assert done.loading == () and "export it with --merge" in (tmp_path / "parts" / "README.md").read_text()


def test_a_seed_that_the_study_has_not_is_refused_even_where_weights_of_it_lie(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    sequence = read_study(folder / "study.yaml").paths[0].name
    (folder / "artifacts" / "mine" / "lora-r2" / sequence / "seed-7" / "phase-0-new").mkdir(parents=True)
    with pytest.raises(UserError, match=r"unknown seed 7 \(known: 0, 1\)"):
        find_trained(folder, "lora-r2", seed=7)


def test_an_export_goes_into_a_folder_of_its_own(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    for output, said in ((kept, "kept.txt is a file"), (tmp_path, "is not empty")):
        with pytest.raises(UserError, match=f"{said}\n  name a folder that does not exist yet"):
            export(tmp_path / "run", "lora-r2", output, merged=False, command="finetrial export")
    assert kept.read_text() == "mine"
