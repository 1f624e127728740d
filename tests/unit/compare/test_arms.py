"""`--arms` as people write it, and the units of `compare`."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetrial.cli.comparing import Asked, read_limits
from finetrial.cli.quantities import read_seconds
from finetrial.compare.arms import Way, centre, fitting, make_arms, parse_arms
from finetrial.compare.inspect import task_for
from finetrial.errors import DataError, MissingPackage, UserError
from finetrial.methods.full import Full
from finetrial.methods.lora import Lora

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 2, "vocab_size": 99, "n_positions": 64}


def test_arms_and_their_options() -> None:
    methods = parse_arms("full, lora:r=8, lora:r=32,targets=all-linear")
    assert methods == {"full": Way(Full()), "lora-r8": Way(Lora(rank=8)),
                       "lora-r32-all-linear": Way(Lora(rank=32, targets="all-linear"))}


def test_qlora_is_lora_on_a_base_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetrial.compare.arms.find_spec", lambda name: object())
    ways = parse_arms("lora:r=8,qlora:r=8")
    assert ways["qlora-r8"] == Way(Lora(rank=8), "nf4")
    plain, quantized = make_arms(ways, 5_000_000, 3)
    assert (plain.quantization, quantized.quantization) == (None, "nf4") and quantized.label == "QLoRA r=8"
    assert plain.learning_rates == quantized.learning_rates
    monkeypatch.setattr("finetrial.compare.arms.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="bitsandbytes"):
        parse_arms("lora:r=8,qlora:r=8")


@pytest.mark.parametrize(("text", "message"), [
    ("full", "at least two"), ("full,full", "given twice"), ("full,loora", "lora"), ("full,lora:rnk=8", "rank"),
    ("full,lora:r=0", "greater than 0")])
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_arms(text)


def test_rates_follow_the_size_of_the_model_and_the_method() -> None:
    assert centre(Full(), 5_000_000) == 3e-4 and centre(Full(), 124_000_000) == 1e-4
    assert centre(Full(), 7_000_000_000) == 1e-5 and centre(Lora(), 124_000_000) == pytest.approx(1e-3)
    arms = make_arms({"full": Way(Full()), "lora": Way(Lora())}, 5_000_000, 3)
    assert [len(arm.learning_rates) for arm in arms] == [3, 3] and arms[0].label == "full fine-tuning"


def test_a_default_that_does_not_fit_is_left_out_and_an_asked_one_is_an_error() -> None:
    methods = {"full": Way(Full()), "lora-r32": Way(Lora(rank=32))}
    assert list(fitting(methods, GPT2, asked=False)) == ["full"]
    with pytest.raises(UserError, match="rank 32"):
        fitting(methods, GPT2, asked=True)


def asked(**options: str) -> Asked:
    written = {"max_memory": None, "max_forgetting": None, "max_trainable": None, **options}
    return Asked("m", Path("a.txt"), None, "1h", None, revision=None, **written)


def test_units() -> None:
    assert [read_seconds(text) for text in ("90s", "30min", "1.5 h")] == [90, 1800, 5400]
    limits = read_limits(asked(max_memory="16GB", max_forgetting="5%", max_trainable="1000000"))
    assert (limits.max_memory_bytes, limits.max_forgetting_share, limits.max_trainable) == (16e9, 0.05, 1_000_000)
    for text in ("soon", "30 fortnights", "-3min"):
        with pytest.raises(UserError, match="--within"):
            read_seconds(text)
    with pytest.raises(UserError, match="--max-memory"):
        read_limits(asked(max_memory="16 elephants"))


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    files = {"a.txt": "hello", "b.jsonl": '{"text": "x"}\n', "c.jsonl": '{"prompt": "x", "completion": "y"}\n'}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert [type(task_for(str(tmp_path / name))).__name__ for name in files] == ["Text", "Text", "PromptCompletion"]
    for name, text, message in (("d.jsonl", '{"question": "x"}', "question"), ("e.jsonl", "nonsense", "not JSON"),
                                ("f.docx", "", ".docx"), ("g.jsonl", "[1]", "a list")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            task_for(str(tmp_path / name))
    with pytest.raises(DataError, match="does not exist"):
        task_for(str(tmp_path / "none.txt"))


def test_the_same_way_written_twice_is_one() -> None:
    with pytest.raises(UserError, match="'lora:r=8' is given twice"):
        parse_arms("full,lora:rank=8,lora:r=8")


def test_a_model_that_is_none() -> None:
    from finetrial.compare.compare import find_base

    with pytest.raises(UserError, match="unknown model 'gpt2'") as caught:
        find_base("gpt2", None)
    assert "openai-community/gpt2" in caught.value.mend


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    from finetrial.compare.compare import find_base

    with pytest.raises(UserError, match="--revision 'main'"):
        find_base(str(tmp_path), "main")


def test_two_ways_written_in_the_same_words_are_two_arms() -> None:
    assert list(parse_arms("unfreeze:last=1,final_norm=true,unfreeze:last=1,embeddings=true")) == [
        "unfreeze-last1-true", "unfreeze-last1-true-2"]
