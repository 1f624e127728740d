import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from finetrial.errors import ModelError
from finetrial.models.check import check_weights
from finetrial.models.load import fuse_activations, load_base, load_tokenizer


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<eos>": 0, **{f"w{index}": index for index in range(1, 90)}}, "<eos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")


@pytest.fixture
def saved(tmp_path: Path, tiny_model: Any, architecture: str) -> Path:
    folder = tmp_path / "model"
    tiny_model(architecture).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def test_loads_what_was_saved(saved: Path, tiny_model: Any, architecture: str) -> None:
    base = load_base(saved)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=ids).logits, tiny_model(architecture)(input_ids=ids).logits,
                                   rtol=1e-5, atol=1e-5)
    assert not base.model.training and base.config.model_type == architecture
    assert base.tokenizer("w3 w5")["input_ids"] == [3, 5]
    assert base.config._attn_implementation == "sdpa"


def test_an_encoder_decoder(tmp_path: Path, tiny_model: Any, encoder_decoder: str) -> None:
    """Tied or not, the same logits after saving and loading; attention is eager whatever is asked for."""
    from transformers import AutoModelForSeq2SeqLM

    model = tiny_model(encoder_decoder)
    model.save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    base = load_base(tmp_path, attention="sdpa")
    assert base.config._attn_implementation == "eager"
    assert (base.model.lm_head.weight is base.model.shared.weight) == (encoder_decoder == "t5")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids, start = torch.arange(2, 20)[None], torch.tensor([[0, 4, 9]])
    with torch.no_grad():
        expected = model(input_ids=ids, decoder_input_ids=start).logits
        for loaded in (base.model, plain):
            torch.testing.assert_close(loaded(input_ids=ids, decoder_input_ids=start).logits, expected, rtol=1e-5,
                                       atol=1e-5)


def test_stored_in_bf16_is_loaded_in_fp32(tmp_path: Path, tiny_model: Any) -> None:
    tiny_model("gpt2").to(torch.bfloat16).save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    assert {p.dtype for p in load_base(tmp_path).model.parameters()} == {torch.float32}


def test_a_base_has_no_dropout(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config.update({"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1} if config["model_type"] == "gpt2"
                  else {"attention_dropout": 0.1})
    (saved / "config.json").write_text(json.dumps(config))
    model = load_base(saved).model.train()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_fused_activation_is_the_same_function(tiny_model: Any) -> None:
    model, plain = tiny_model("gpt2"), tiny_model("gpt2")
    fuse_activations(model)
    assert isinstance(model.transformer.h[0].mlp.act, torch.nn.GELU)
    assert not isinstance(plain.transformer.h[0].mlp.act, torch.nn.GELU)
    values = torch.linspace(-8, 8, 1001)
    torch.testing.assert_close(model.transformer.h[0].mlp.act(values), plain.transformer.h[0].mlp.act(values),
                               rtol=1e-6, atol=1e-6)


def test_truncated_weights_name_the_file_and_the_mend(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors is missing, truncated or damaged") as caught:
        load_base(saved)
    assert "copy the file again" in caught.value.mend
    with pytest.raises(ModelError, match="damaged"):
        check_weights(weights)


def test_pickled_weights_are_refused(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_base(saved)
    (saved / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_base(saved)


def test_missing_shard_is_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="model-00001-of-00002.safetensors is missing"):
        load_base(saved)


def test_missing_parts_are_named(saved: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(saved / name, tmp_path / name)
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_base(saved)
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(saved)
    with pytest.raises(ModelError, match=r"not a model folder: it has no config\.json"):
        load_base(tmp_path / "nowhere")


def test_weights_that_do_not_fill_the_model(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"] = 3
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="do not fill the model"):
        load_base(saved)


def test_a_checkpoint_without_a_head_is_told_as_one(saved: Path) -> None:
    """Fetching it again would bring the same."""
    config = json.loads((saved / "config.json").read_text())
    config["n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"] = 3
    (saved / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(ModelError, match="do not fill the model") as caught:
        load_base(saved)
    assert "names LlamaForSequenceClassification, which has no head that generates" in caught.value.mend


def test_unknown_architecture(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "model_type": "gpt_2"}))
    with pytest.raises(ModelError, match="unknown model architecture 'gpt_2'; did you mean 'gpt2'"):
        load_base(saved)
