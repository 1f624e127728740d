"""What is done with a run: from a notebook, exported, asked, opened, cleaned up after. One run serves all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from notebooks import execute
from tiny_study import WORDS, save_tiny_base

from finetrial.cli import main
from finetrial.errors import UserError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "laptop.ipynb"


def write_words(path: Path, *, step: int, documents: int = 300, seed: int = 0) -> Path:
    """Documents of random words in pairs, the second of a pair `step` after the first: no document is like another."""
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(documents):
        firsts = generator.integers(0, WORDS - 1, 12)
        texts.append(" ".join(f"w{1 + first} w{1 + (first + step) % (WORDS - 1)}" for first in firsts))
    path.write_text("<|endoftext|>".join(texts))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("laptop")
    save_tiny_base(made / "model")
    write_words(made / "new.txt", step=7)
    write_words(made / "old.txt", step=3, seed=1)
    return made


@pytest.fixture(scope="module")
def names(folder: Path) -> Iterator[dict[str, Any]]:
    """What the notebook leaves behind, run in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield execute(NOTEBOOK, {"MODEL": "model", "STEPS": 6, "TOKENS": 32,
                                 "RATES": {"full": [1e-3, 1e-2], "lora": [1e-2, 1e-1]}})


@pytest.fixture
def run(names: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    return names["run"]


def command(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints, on standard output, or, where it ends with a mistake, on standard error."""
    capsys.readouterr()
    assert main([*arguments]) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def logits(model: Any, tokenizer: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(**tokenizer("w3 w10 w5 w12 w80", return_tensors="pt", return_token_type_ids=False)).logits


def test_the_notebook_shows_a_complete_run(run: Any) -> None:
    assert run.results.status == "complete" and run.report.is_file()
    assert set(run.measures.measure) >= {"plasticity", "forgetting"}
    assert {"learning_rate", "rank", "value", "selected"} <= set(run.scores.columns) and "point" not in run.scores.columns
    assert set(run.costs.arm) == {"full", "lora"} and len(run.tuning) == 6
    assert run.findings.verdict.iloc[0] in ("SUPPORTED", "REFUTED", "INCONCLUSIVE", "EQUIVALENT", "ASSAY FAILED")
    assert run.figures["plane"].to_dict(validate=False)["config"]


def test_a_run_is_opened_from_its_folder(run: Any, tmp_path: Path) -> None:
    import finetrial
    
    opened = finetrial.open_run(run.folder)
    assert opened.results == run.results and opened.study == run.study
    assert opened.scores.equals(run.scores)
    with pytest.raises(UserError, match=r"is not a finished run: it has no study\.yaml"):
        finetrial.open_run(tmp_path)


def test_an_exported_adapter_is_the_arm_in_plain_peft(run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    printed = command(capsys, "export", run.folder.name, "lora", "--output", str(tmp_path / "out"), "--seed", "1")
    adapter = next((tmp_path / "out").rglob("adapter_config.json")).parent
    assert f'/model"), "{adapter}")' in printed and "AutoTokenizer.from_pretrained(" in printed
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(Path("model").resolve())
    assert "Learning rate: " in (tmp_path / "out" / "README.md").read_text()
    base, tokenizer = AutoModelForCausalLM.from_pretrained("model"), AutoTokenizer.from_pretrained("model")
    untouched = logits(base, tokenizer)
    loaded = logits(PeftModel.from_pretrained(base, str(adapter)), tokenizer)
    own = logits(*run.model("lora", seed=1))
    torch.testing.assert_close(loaded, own, rtol=0, atol=1e-5)
    assert float((loaded - untouched).abs().max()) > 1e-3
    assert "finetrial export" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("arm", ["lora", "full"])
def test_a_merged_export_is_the_arm_in_plain_transformers(arm: str, run: Any, capsys: pytest.CaptureFixture[str],
                                                          tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    printed = command(capsys, "export", run.folder.name, arm, "--merge", "--output", str(tmp_path / "out"))
    stated = float(printed.split("unmerged model: ")[1].split()[0])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    difference = float((logits(merged, AutoTokenizer.from_pretrained(tmp_path / "out"))
                        - logits(*run.model(arm))).abs().max())
    assert difference < 1e-4 and stated < 1e-4
    assert f"{stated:.2g}" in (tmp_path / "out" / "README.md").read_text()


def test_exports_that_cannot_be_made(run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    assert "is not empty" in command(capsys, "export", run.folder.name, "lora", "--output", str(tmp_path), code=2)
    new = str(tmp_path / "new")
    assert "did you mean 'lora'" in command(capsys, "export", run.folder.name, "lorra", "--output", new, code=2)
    assert "holds no trained weights of phase 9" in command(capsys, "export", run.folder.name, "lora", "--output", new,
                                                            "--phase", "9", code=2)
    assert "unknown seed 9" in command(capsys, "export", run.folder.name, "lora", "--output", new, "--seed", "9", code=2)


def test_generate_shows_every_arm(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    printed = command(capsys, "generate", run.folder.name, "--prompt", "w3 w10 w5", "--tokens", "4")
    headings = ["Prompt", "base (mine)", "full fine-tuning", "LoRA r=4"]
    assert [printed.index(heading) for heading in headings] == sorted(printed.index(heading) for heading in headings)
    assert "w3 w10 w5" in printed
    assert "full fine-tuning" not in command(capsys, "generate", run.folder.name, "--prompt", "w3", "--tokens", "4", "--arms",
                                               "lora")
    assert "unknown arm" in command(capsys, "generate", run.folder.name, "--prompt", "w3", "--arms", "x", code=2)
    assert "but the model has 64 positions" in command(capsys, "generate", run.folder.name, "--prompt", "w3", code=2)


def test_generate_searches_as_it_is_asked_to(run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrial import generate

    plain, seen = generate.decode, []

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.append((options["beams"].num_beams, options["constraints"].no_repeat_ngram_size))
        return plain(*arguments, **options)

    monkeypatch.setattr(generate, "decode", noted)
    question = ("generate", run.folder.name, "--prompt", "w3 w10 w5", "--tokens", "6", "--arms", "base")
    said = [command(capsys, *question, *options).split("base (mine)")[1].split()
            for options in ((), ("--num-beams", "5", "--no-repeat-ngram-size", "1"))]
    assert seen == [(1, 0), (5, 1)] and said[0] != said[1] and len(set(said[1])) == len(said[1])


def test_an_arm_without_weights_does_not_silence_the_others(run: Any, capsys: pytest.CaptureFixture[str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrial.run import adapters

    found = adapters.find_trained

    def without_full(folder: Path, arm: str, **which: Any) -> Any:
        if arm == "full":
            raise adapters.NoWeights(f"{folder / arm} holds no trained weights")
        return found(folder, arm, **which)

    monkeypatch.setattr(adapters, "find_trained", without_full)
    question = ("generate", run.folder.name, "--prompt", "w3 \x1b]0;title", "--tokens", "4")
    printed = command(capsys, *question)
    assert "no answer" in printed and "holds no trained weights" in printed and "LoRA r=4" in printed
    assert "\x1b" not in printed and "\\x1b]0;title" in printed
    assert "holds no trained weights" in command(capsys, *question, "--arms", "full", code=2)
    assert main([*question, "--sequence", "typo"]) == 2
    printed, refused = capsys.readouterr()
    assert "unknown sequence 'typo'" in refused and not printed, "before any answer"


def test_open_shows_the_report(run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                               tmp_path: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert command(capsys, "open", run.folder.name) == f"report: {Path('runs') / run.folder.name / 'report.html'}\n"
    assert opened == [run.report.resolve().as_uri()]
    (tmp_path / "bare").mkdir()
    assert "unknown run" in command(capsys, "open", str(tmp_path / "bare"), code=2)
    shutil.copy(run.folder / "study.yaml", tmp_path / "bare")
    assert "has no report yet" in command(capsys, "open", str(tmp_path / "bare"), code=2)


def test_gc_says_what_no_run_needs_and_frees_only_that(run: Any, capsys: pytest.CaptureFixture[str],
                                                       tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree("runs", runs)
    entries = set((runs / ".store").rglob("record.json"))
    assert "nothing to free" in command(capsys, "gc", "--runs", str(runs))
    orphan = runs / ".store" / "train" / "ab" / f"ab{'0' * 30}-0123456789abcdef"
    shutil.copytree(next(entry.parent for entry in entries if entry.parent.parent.parent.name == "train"), orphan)
    printed = command(capsys, "gc", "--runs", str(runs))
    assert f"would be freed: finetrial gc --yes --runs {runs}" in printed and orphan.is_dir()
    assert command(capsys, "gc", "--runs", str(runs), "--yes").splitlines()[-1].startswith("freed ")
    assert not orphan.exists() and set((runs / ".store").rglob("record.json")) == entries
    shutil.rmtree(runs / run.folder.name)
    assert "no run below" in command(capsys, "gc", "--runs", str(runs), "--yes", code=2)
    assert set((runs / ".store").rglob("record.json")) == entries


def test_data_that_changed_since_takes_nothing_from_a_report_or_the_store(run: Any, capsys: pytest.CaptureFixture[str],
                                                                         tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    shutil.copytree(".", project)
    monkeypatch.chdir(project)
    folder = Path("runs") / run.folder.name
    before = json.loads((folder / "results.json").read_text())
    with (project / "new.txt").open("a") as text:
        text.write("<|endoftext|>w1 w2 w3 w4")
    monkeypatch.setattr("finetrial.stages.train.Train.version", 99)  # a later finetrial
    assert "nothing to free" in command(capsys, "gc")
    command(capsys, "report", run.folder.name)
    after = json.loads((folder / "results.json").read_text())
    assert after["scores"] == before["scores"] and after["status"] == "complete"

    text = (folder / "results.json").read_text()
    for trained in Path("runs/.store/train").glob("*/*"):
        shutil.rmtree(trained)
    for predicted in sorted(Path("runs/.store/predict").glob("*/*"))[1:]:
        shutil.rmtree(predicted)
    assert "scores, and only" in command(capsys, "report", run.folder.name, code=2)
    assert (folder / "results.json").read_text() == text


def test_a_place_that_is_written_wrongly_is_told_as_such(run: Any, capsys: pytest.CaptureFixture[str],
                                                         tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree("runs", runs)
    folder = runs / run.folder.name
    (folder / "run.json").write_text('{"device": "cpu" "command": ""}')
    for name in ("report", "gc"):
        printed = command(capsys, *([name, run.folder.name] if name == "report" else [name]), "--runs", str(runs), code=2)
        assert "run.json cannot be read" in printed and "line 1 column" in printed and "bug" not in printed
    (folder / "status.json").write_text("{")
    assert "unreadable" in command(capsys, "status", "--runs", str(runs))


def test_gc_frees_the_checkpoints_of_what_no_run_plans(run: Any, capsys: pytest.CaptureFixture[str],
                                                       tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree("runs", runs)
    train = next((runs / ".store" / "train").rglob("record.json"))
    for name in (train.parent.name, f"{'ab' * 16}-0123456789abcdef"):
        place = runs / ".store" / "checkpoints" / name
        place.mkdir(parents=True)
        (place / "state").write_bytes(b"1" * 1_000_000)
    assert "1.0 MB would be freed" in command(capsys, "gc", "--runs", str(runs))
    assert command(capsys, "gc", "--runs", str(runs), "--yes").splitlines()[-1] == "freed 1.0 MB"
    assert [path.name for path in (runs / ".store" / "checkpoints").iterdir()] == [train.parent.name]


def test_init_writes_a_study_that_can_be_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrial.spec.io import read_study

    monkeypatch.chdir(tmp_path)
    printed = command(capsys, "init")
    assert printed.splitlines() == ["written: study.yaml", "see what it would do: finetrial plan study.yaml",
                                    "run it: finetrial run study.yaml"]
    assert read_study(Path("study.yaml")).name == "my-study"
    assert "exists already" in command(capsys, "init", code=2)
    assert "ends in .yaml" in command(capsys, "init", "study.txt", code=2)


def test_compare_to_its_end(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user would, but with a grid that does not depend on how fast this machine is."""
    from finetrial.compare import design
    from finetrial.spec.io import read_study

    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    least = design.Grid(design.EFFORTS[-1], rates=2, seeds=3, steps=6, seconds=30.0)
    monkeypatch.setattr(design, "grid_for", lambda *arguments: least)
    monkeypatch.setattr("finetrial.run.within.seeds_within", lambda *_, **more: more["done"])
    asked = ("compare", "--model", "model", "--learn", "new.txt", "--keep", "old.txt", "--runs", "compared",
             "--arms", "full,lora:r=2", "--within", "10min", "--max-trainable", "50%")
    printed = command(capsys, *asked)
    for words in ("The plan", "2 learning rates x 3 seeds", "unknown: how noisy", "Learned", "Forgot", "Recommendation"):
        assert words in printed, printed
    for line in printed.splitlines():
        assert len(line) <= 80 or line.startswith(("model", "weights: ", "load it: ", "tokenizer: ", "as one model: ", "study: ", "report: "))
    run = folder / "compared" / "compare-new-custom-compare"
    study = read_study(run / "study.yaml")
    assert study.limits.max_trainable_share == 0.5 and study.training.budget.amount == 6
    if "load it: " in printed:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        code = printed.split("load it: ")[1].splitlines()[0]
        assert eval(code, {"PeftModel": PeftModel, "AutoModelForCausalLM": AutoModelForCausalLM}) is not None
    assert (run / "report.html").is_file()
    monkeypatch.setattr(design, "grid_for", lambda *arguments: pytest.fail("it was planned before"))
    again = command(capsys, *asked)
    assert "asked before" in again and "Recommendation" in again
    assert read_study(run / "study.yaml") == study


def test_a_limit_on_forgetting_needs_what_is_to_be_kept(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    printed = command(capsys, "compare", "--model", str(folder / "model"), "--learn", str(folder / "new.txt"),
                      "--max-forgetting", "0.1", code=2)
    assert "--max-forgetting needs --keep" in printed
