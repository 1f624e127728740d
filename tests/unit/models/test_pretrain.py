"""Recipes of the bundled bases: tiny ones of each architecture are trained, judged and described from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetrial.errors import UserError
from finetrial.models.bundled import pretrain as pretraining
from finetrial.models.bundled.gpt import TINY_GPT
from finetrial.models.bundled.pretrain import RECIPES, pretrain
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER, encode_documents
from finetrial.models.bundled.recipe import SAMPLES, Recipe
from finetrial.models.bundled.t5 import TINY_T5, documents, marks
from finetrial.models.bundled.tokenizer import PAD, SENTINELS, encoder_decoder_tokenizer
from finetrial.models.load import load_base
from finetrial.streams import Streams
from finetrial.train.loss import check_base, item_losses, make_batch

MOST_PARAMETERS = 8_000_000
TINY = {
    "tiny-gpt": replace(TINY_GPT, layers=1, width=32, positions=128, batch_sequences=4, micro_batch=4, tokens=2_000),
    "tiny-t5": replace(TINY_T5, encoder_layers=1, decoder_layers=1, width=32, inner=64, embeddings_of=None,
                       source_tokens=(16, 48), target_tokens=(8, 24), copied_first=8, copied_tokens=(16, 32), batch_sequences=8, micro_batch=8, tokens=1_500),
}
FACTS = {"num_tokens": 30_000, "num_bytes": 100_000, "num_documents": 40,
         "packages": [{"name": "areas", "version": "1.0", "license": "MIT"}]}


def _source(number: int) -> str:
    return "\n".join(f'def area_{number}_{line}(width, height):\n    """Gives the area of größe {line}."""\n'
                     f"    return width * height * {number * line}\n\n" for line in range(12))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `pretrain_data`, of a few small sources."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("data")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    ids, _ = encode_documents([_source(number) for number in range(40)], tokenizer)
    np.save(folder / "train.npy", ids)
    for name, first in (("val", 100), ("test", 200)):
        texts = [_source(number) for number in range(first, first + 8)]
        ids, offsets = encode_documents(texts, tokenizer)
        np.savez(folder / f"{name}.npz", ids=ids, offsets=offsets, paths=np.array([f"{name}/{n}.py" for n in range(8)]),
                 num_bytes=np.array([len(text.encode()) for text in texts]))
    (folder / "manifest.json").write_text(json.dumps(FACTS))
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Tiny recipes in the place of the real ones, judged by few pairs."""
    monkeypatch.setattr(pretraining, "RECIPES", TINY)
    monkeypatch.setattr("finetrial.models.bundled.t5.GATE_PAIRS", 20)
    monkeypatch.setattr("finetrial.models.bundled.t5.VALIDATION_PAIRS", 10)
    monkeypatch.setattr("finetrial.models.bundled.t5.RESTORED_TEXTS", 10)


def _output(folder: Path, data: Path) -> Path:
    (folder / "work").mkdir(parents=True)
    for path in data.iterdir():
        (folder / "work" / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_base_is_made_judged_and_described(name: str, data: Path, tmp_path: Path, small: None) -> None:
    said: list[str] = []
    output = _output(tmp_path / name, data)
    gate = pretrain(name, output, threads=1, say=said.append)
    assert json.loads((output / "gate.json").read_text()) == gate
    assert 0 < gate["bits_per_byte"] < 20 and isinstance(gate["passed"], bool)
    assert json.loads((output / "recipe.json").read_text())["tokens"] == TINY[name].tokens
    assert json.loads((output / "manifest.json").read_text()) == FACTS
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert any("validation_nats_per_token" in line for line in log)
    card = (output / "README.md").read_text()
    assert card.count("⟶") == SAMPLES and "areas 1.0 (MIT)" in card and f"{gate['bits_per_byte']:.3f}" in card
    before = (output / "model.safetensors").read_bytes()
    assert pretrain(name, output, threads=1, say=said.append) == gate
    assert (output / "model.safetensors").read_bytes() == before
    assert any("judged, not trained again" in line for line in said)
    assert load_base(output).model.config.vocab_size == len(load_base(output).tokenizer)


def test_an_interrupted_pretraining_goes_on(data: Path, tmp_path: Path, small: None,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def kill(number: int) -> Any:
        def note(model: Any, validation: Any, lines: Any, step: int, say: Any) -> float:
            if step == number:
                raise Killed
            return 1.0
        return note

    from finetrial.train.checkpoint import Checkpoints

    monkeypatch.setattr("finetrial.train.checkpoint.Checkpoints", lambda folder, every_seconds: Checkpoints(folder, 0))
    whole, broken = _output(tmp_path / "whole", data), _output(tmp_path / "broken", data)
    monkeypatch.setattr(pretraining, "_validated", kill(-1))
    pretrain("tiny-t5", whole, threads=1, say=lambda line: None)
    monkeypatch.setattr(pretraining, "_validated", kill(2))
    with pytest.raises(Killed):
        pretrain("tiny-t5", broken, threads=1, say=lambda line: None)
    monkeypatch.setattr(pretraining, "_validated", kill(-1))
    pretrain("tiny-t5", broken, threads=1, say=lambda line: None)
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny-t6.*tiny-t5"):
        pretrain("tiny-t6", tmp_path)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_sizes(recipe: Recipe) -> None:
    tokenizer = recipe.tokenizer()
    model = recipe.random_model(tokenizer, Streams(0))
    assert sum(parameter.numel() for parameter in model.parameters()) <= MOST_PARAMETERS
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)


def test_the_tokenizers_agree_on_text(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    gpt = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    encoder_decoder_tokenizer(TOKENIZER_FOLDER).save_pretrained(tmp_path)
    t5 = AutoTokenizer.from_pretrained(tmp_path)
    text = 'def f(x):\n    return "naïve <|endoftext|> <|span_3|>"\n'
    plain = gpt(text, split_special_tokens=True)["input_ids"]
    assert t5(text, split_special_tokens=True)["input_ids"] == [*plain, gpt.eos_token_id]
    assert t5(text, split_special_tokens=True, add_special_tokens=False)["input_ids"] == plain
    assert t5.decode([*plain, gpt.eos_token_id], skip_special_tokens=True) == text
    assert len(t5) == len(gpt) + 1 + len(SENTINELS) == TINY_T5.vocabulary and len(t5) % 32 == 0
    assert t5.pad_token == PAD and t5.pad_token_id != t5.eos_token_id == gpt.eos_token_id
    assert marks(t5).sentinels == range(t5.convert_tokens_to_ids(SENTINELS[0]), len(t5))
    assert {t5.decode([token]).count("\n") > 1 for token in np.flatnonzero(marks(t5).blank_lines)} == {True}


def test_t5_begins_with_the_embeddings_of_tiny_gpt_at_its_own_scale() -> None:
    recipe = replace(TINY_T5, encoder_layers=1, decoder_layers=1, inner=64)
    begun = recipe.random_model(recipe.tokenizer(), Streams(0)).shared.weight.detach()
    at_random = replace(recipe, embeddings_of=None).random_model(recipe.tokenizer(), Streams(0)).shared.weight.detach()
    learned = load_base(TOKENIZER_FOLDER).model.get_input_embeddings().weight.detach().float()
    assert torch.allclose(begun[:len(learned)] / TINY_T5.embedding_std, learned / learned.std(), atol=1e-5)
    assert torch.equal(begun[len(learned):], at_random[len(learned):])  # padding and sentinels, which tiny-gpt has not


def test_t5_begins_with_heads_that_look_at_neighbours() -> None:
    recipe = TINY["tiny-t5"]
    model = recipe.random_model(recipe.tokenizer(), Streams(0))
    places = torch.arange(12)
    encoder = model.encoder.block[0].layer[0].SelfAttention.compute_bias(12, 12)[0]  # (heads, queries, keys)
    assert torch.equal(encoder[0].argmax(1)[1:], places[:-1]) and torch.equal(encoder[1].argmax(1)[:-1], places[1:])
    decoder = model.decoder.block[0].layer[0].SelfAttention.compute_bias(12, 12)[0]
    assert torch.equal(decoder[0].argmax(1)[1:], places[:-1])
    assert {round(float(head.detach().max() - head.detach().min())) for head in (*encoder[:2], decoder[0])} == {4}
    assert float(encoder[2:].detach().abs().max()) < 1 and float(decoder[1:].detach().abs().max()) < 1


def test_the_bundled_t5_reads_its_source() -> None:
    """The same line, given itself with a word lost, and given another line."""
    base = load_base(TOKENIZER_FOLDER.parent / "tiny-t5")
    tokenizer = base.tokenizer
    lost = torch.tensor([tokenizer.convert_tokens_to_ids(SENTINELS[0])])

    def ids(text: str) -> torch.Tensor:
        return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])

    def nats(before: str, after: str) -> float:
        source = torch.cat([ids(before), lost, ids(after), torch.tensor([tokenizer.eos_token_id])])
        with torch.no_grad():
            return float(base.model(input_ids=source[None], labels=ids("    quorum_table = merge(left_wing, oak_tree, 417)\n")[None]).loss)

    own = nats("    quorum_table = ", "(left_wing, oak_tree, 417)\n")
    assert own < nats("    harbour_map = ", "(small_boat, tall_mast, 283)\n") / 2


def test_t5_starts_as_a_uniform_guess_and_its_loss_is_its_own(data: Path) -> None:
    tokenizer = TINY_T5.tokenizer()
    recipe = TINY["tiny-t5"]
    model = recipe.random_model(tokenizer, Streams(0))
    pairs = recipe.held_out_pairs(data / "test.npz", tokenizer, 8)
    scored = documents(pairs, tokenizer)
    sums, counts = item_losses(model, scored)
    assert float(sums.sum() / counts.sum()) == pytest.approx(np.log(len(tokenizer)), rel=0.03)
    check_base(model, make_batch(scored, [(0,), (1,)], pad_id=tokenizer.pad_token_id, start_id=tokenizer.pad_token_id))
    assert scored.num_bytes.tolist() == [
        len(tokenizer.backend_tokenizer.decoder.decode(tokenizer.convert_ids_to_tokens(pair.target)).encode())
        for pair in pairs]
    assert all(tokenizer.eos_token_id not in pair.target for pair in pairs)
    assert torch.equal(model.lm_head.weight, model.shared.weight)
