"""Model folders that are not what they should be: each has its own one-line error, and none loads half a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import save_tiny_base

from finetrial.compare.compare import find_base
from finetrial.errors import ModelError, UserError
from finetrial.models.load import load_base, load_tokenizer
from finetrial.plan.bases import resolve_base
from finetrial.spec.uses import Base

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 548105171\n"


def set_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text())
        content.update(values)
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return change


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:int(share * len(content))])
    return change


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {"transformer.wte.weight": "model-00002-of-00002.safetensors"}}))


def more_tokens(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary.update({f"more{number}": len(vocabulary) + number for number in range(500)})
    (folder / "tokenizer.json").write_text(json.dumps(content))


MALFORMED: list[tuple[str, Callable[[Path], None], str]] = [
    ("no folder", shutil.rmtree, "no folder at"),
    ("a file", a_file, "no folder at"),
    ("no config", remove("config.json"), "has no config.json"),
    ("config empty", write("config.json", ""), "cannot be read"),
    ("config no JSON", write("config.json", "{'model_type': 'gpt2'}"), "cannot be read"),
    ("config a list", write("config.json", "[]"), "holds a list, not an object"),
    ("no architecture", set_config(model_type=None), "model_type"),
    ("an encoder", set_config(model_type="bert"), "bert"),
    ("a vision model", set_config(model_type="vit"), "vit"),
    ("an unheard-of architecture", set_config(model_type="gtp2"), "gtp2"),
    ("code of its own", set_config(auto_map={"AutoModelForCausalLM": "modeling.Mine"}, model_type="mine"), "mine"),
    ("quantised already", set_config(quantization_config={"quant_method": "gptq", "bits": 4}), "gptq"),
    ("no weights", remove("model.safetensors"), "has no *.safetensors"),
    ("pickled weights", pickled, "pickle"),
    ("weights cut short", cut("model.safetensors", 0.5), "missing, truncated or damaged"),
    ("weights with a byte less", cut("model.safetensors", 0.99999), "where its header tells of"),
    ("weights empty", cut("model.safetensors", 0.0), "missing, truncated or damaged"),
    ("weights a pointer", write("model.safetensors", LFS_POINTER), "a pointer of git-lfs"),
    ("a shard missing", shard_missing, "model-00002-of-00002.safetensors"),
    ("more layers than weights", set_config(n_layer=3), "do not fill the model"),
    ("another width", set_config(n_embd=48), "do not fill the model"),
    ("heads that do not divide", set_config(n_head=7), "head"),
    ("no tokenizer", lambda folder: [path.unlink() for path in folder.glob("*token*")] and None, "no tokenizer"),
    ("tokenizer cut short", cut("tokenizer.json", 0.5), "tokenizer"),
    ("tokenizer of another model", more_tokens, "tokens, the model's embedding"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base") / "model")


ONLY_LOADING_TELLS = ("heads that do not divide",)


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in MALFORMED if row[0] not in ONLY_LOADING_TELLS],
                         ids=[row[0] for row in MALFORMED if row[0] not in ONLY_LOADING_TELLS])
def test_a_malformed_model_is_refused_before_anything_is_loaded(change: Callable[[Path], None], message: str, saved: Path,
                                                                tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(UserError) as caught:
        resolve_base(find_base(str(folder), None))
    assert message in caught.value.problem and caught.value.mend
    assert "\n" not in caught.value.problem


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
def test_headers_tell_the_shapes_of_every_architecture(architecture: str, tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "model", architecture)
    resolve_base(find_base(str(folder), None))
    config = json.loads((folder / "config.json").read_text())
    width = {"gpt2": "n_embd", "t5": "d_ff"}.get(architecture, "intermediate_size")
    set_config(**{width: config.get(width) + 16})(folder)
    with pytest.raises(UserError, match="do not fill the model: .* expected "):
        resolve_base(find_base(str(folder), None))


def test_weights_of_a_model_without_its_head_fit(saved: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    load_base(resolve_base(find_base(str(folder), None)).folder)


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_malformed_model(change: Callable[[Path], None], message: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(UserError) as caught:
        load_base(resolve_base(find_base(str(folder), None)).folder)
    assert message in caught.value.problem and caught.value.mend
    assert "\n" not in caught.value.problem


def test_a_tokenizer_with_code_of_its_own_runs_none_and_asks_nothing(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "model", "llama")
    (folder / "mine.py").write_text("raise SystemExit('this must not run')")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "MineTokenizer", "auto_map": {"AutoTokenizer": ["mine.MineTokenizer", "mine.MineTokenizer"]}}))
    with pytest.raises(ModelError, match="Python code of its own, which finetrial does not run"):
        load_tokenizer(folder)


@pytest.mark.parametrize(("name", "content", "mend"), [
    ("tokenizer.json", '{"version": "1.0", "model": {"type": "Unheard"}}', "copy or save it again"),
    ("tokenizer.model", "no model of sentencepiece", "save_pretrained")])
def test_a_tokenizer_that_no_library_reads(name: str, content: str, mend: str, saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved / "config.json", tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert mend in caught.value.mend


def test_a_folder_has_no_revision(saved: Path) -> None:
    for base in (Base(name="mine", source=str(saved), revision="main"), Base(name="tiny-gpt", revision="main")):
        with pytest.raises(ModelError, match="which has no revision 'main'") as caught:
            resolve_base(base)
        assert "leave out the revision" in caught.value.mend


def test_settings_of_a_tokenizer_that_cannot_be_read(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "tokenizer_config.json").write_text("{")
    base = resolve_base(Base(name="mine", source=str(folder)))
    with pytest.raises(ModelError, match="tokenizer_config.json cannot be read"):
        _ = base.chat_template
