"""Data with prompts, training, losses and outputs of a task that generates: a decoder and an encoder-decoder."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from finetrial.errors import DataError, ModelError, UserError
from finetrial.plan.bases import resolve_base
from finetrial.records.record import Environment, Outcome, Record
from finetrial.spec.arm import Component
from finetrial.spec.model import plugin_from
from finetrial.spec.uses import Base
from finetrial.stages.adapted import LIVE
from finetrial.stages.base import StageContext, StageInput, StageTimeout
from finetrial.stages.data import Data
from finetrial.stages.generate import OUTPUTS, Generate
from finetrial.stages.predict import PREDICTIONS, Predict
from finetrial.stages.train import Train
from finetrial.tasks.encoded import TokenDataset

HERE = Environment(device="cpu", torch="0", transformers="0", peft="0", cpu_capability="TEST")
FORMS = {"gpt2": "decoder", "t5": "encoder-decoder"}
MAX_NEW_TOKENS = 8
pytestmark = pytest.mark.usefixtures("one_thread")


def save_base(folder: Path, architecture: str, tiny_model: Any) -> Path:
    """A tiny model and a tokenizer of words; T5's closes every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, **{f"w{n}": n for n in range(2, 97)}}, "<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if architecture == "t5":
        words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tiny_model(architecture).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>").save_pretrained(folder)
    return folder


def write_pairs(path: Path) -> Path:
    """Prompts of 3 to 30 words; the completion is its first word, twice."""
    rows = [{"prompt": " ".join(f"w{2 + (7 * n + k) % 90}" for k in range(3 + n % 28)),
             "completion": f"w{2 + 7 * n % 90} w{2 + 7 * n % 90}"} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Bench:
    """Runs stages by hand: base, data, a phase of training, predictions."""

    def __init__(self, folder: Path, architecture: str, tiny_model: Any) -> None:
        self.folder, self.architecture, self.shared = folder, architecture, {}
        self.base = save_base(folder / "base", architecture, tiny_model)
        self.task = {"kind": "prompt-completion", "path": str(write_pairs(folder / "pairs.jsonl"))}
        self.resolved = resolve_base(Base(name="base", source=str(self.base)))
        self.model = {"base": self.resolved.weights_digest, "attention": "sdpa" if architecture == "gpt2" else "eager", "threads": 1}
        self.options: dict[str, Any] = {}

    def run(self, kind: Any, name: str, spec: Mapping[str, Any], **inputs: StageInput) -> StageInput:
        folder = self.folder / name
        folder.mkdir()
        if kind is Data:
            source: str = plugin_from("task", self.task).source_digest()
            spec = {"source": source, "tokenizer": self.resolved.tokenizer_digest, **spec}
        context = StageContext(
            stage_id=name, spec=spec, inputs=inputs, folder=folder, checkpoint=folder / "checkpoint", device="cpu",
            micro_batch=None, log=logging.getLogger("test"), progress=lambda what: None, shared=self.shared,
            locations={"base": str(self.base), "task": json.dumps(self.task)}, **self.options)
        values = json.loads(json.dumps(kind().run(context)))
        return StageInput(Record(key="0" * 32, stage_id=name, kind=name, identity={"spec": dict(spec)},
                                 environment=HERE, outcome=Outcome.OK, values=values, started="", seconds=0.0), folder)

    def data(self, name: str = "data", **options: Any) -> StageInput:
        spec = {"max_tokens": 24, "num_val": 4, "num_test": 6, "max_new_tokens": MAX_NEW_TOKENS,
                "form": FORMS[self.architecture], **options}
        return self.run(Data, name, spec)

    def train(self, data: StageInput) -> StageInput:
        spec = {**self.model, "components": [Component(method="full").spec()], "task": "pairs", "phase": 1, "seed": 0,
                "learning_rate": 1e-2, "training": {"budget": "12 steps", "sequence_length": 24, "batch_sequences": 4,
                                                    "evaluations": 1}}
        return self.run(Train, "train", spec, data=data)

    def generate(self, name: str, **inputs: StageInput) -> StageInput:
        decoding = self.options.pop("decoding", None)
        spec = {**self.model, "split": "test", "precision": "fp32", "max_new_tokens": MAX_NEW_TOKENS}
        return self.run(Generate, name, spec if decoding is None else {**spec, "decoding": decoding}, **inputs)


@pytest.fixture(params=FORMS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: Any) -> Bench:
    return Bench(tmp_path, request.param, tiny_model)


def read(stage: StageInput, name: str = OUTPUTS) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(stage.folder / name).to_pydict()
    return columns


def plain_outputs(bench: Bench, prompts: TokenDataset) -> list[str]:
    """transformers' own `generate`, one prompt at a time."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    auto = AutoModelForCausalLM if bench.architecture == "gpt2" else AutoModelForSeq2SeqLM
    model, tokenizer = auto.from_pretrained(bench.base), AutoTokenizer.from_pretrained(bench.base)
    found = []
    for row in range(len(prompts)):
        ids = torch.tensor([prompts.row(row)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=1,
                                max_new_tokens=MAX_NEW_TOKENS, pad_token_id=0)[0]
        found.append(tokenizer.decode(output[1 if bench.architecture == "t5" else len(ids[0]):],
                                      skip_special_tokens=True))
    return found


def test_data_has_prompts_and_texts_row_for_row(bench: Bench) -> None:
    data = bench.data()
    for split, count in (("val", 4), ("test", 6)):
        rows = TokenDataset.load(data.folder / f"{split}.npz")
        prompts = TokenDataset.load(data.folder / f"{split}-prompts.npz")
        texts = read(data, f"{split}-texts.parquet")
        most = 23 if bench.architecture == "t5" else 24 - MAX_NEW_TOKENS
        assert len(rows) == count and rows.items == prompts.items == texts["item"]
        assert rows.clusters == prompts.clusters == texts["cluster"]
        assert not prompts.loss_mask.any()
        assert set(texts) == {"item", "cluster", "input", "reference", "floor:copy", "floor:constant"}
        assert texts["floor:copy"] == texts["input"]
        for row in range(count):
            words = [int(word[1:]) for word in texts["input"][row].split()]
            if bench.architecture == "t5":
                assert prompts.row(row) == rows.source(row) == [*words[:most], 1]
                assert rows.row(row)[-1] == 1 and len(rows.row(row)) == 3
            else:
                assert prompts.row(row) == words[:most]
                assert rows.source(row) == []
            assert [int(word[1:]) for word in texts["reference"][row].split()] == rows.row(row)[-3:-1]
        too_long = sum(len(text.split()) > most for text in texts["input"])
        assert data.record.values["splits"][split]["num_prompts_cut"] == too_long
    assert not (data.folder / "train-prompts.npz").exists()


def test_a_task_that_does_not_generate_has_neither(bench: Bench) -> None:
    data = bench.run(Data, "data", {"max_tokens": 24, "num_val": 4, "num_test": 6, "form": FORMS[bench.architecture]})
    assert sorted(path.name for path in data.folder.iterdir()) == ["test.npz", "train.npz", "val.npz"]


def test_inputs_that_are_not_those_of_the_key_are_refused(bench: Bench) -> None:
    with pytest.raises(DataError, match="the data changed after the study was planned"):
        bench.data(source="what was planned")
    with pytest.raises(ModelError, match="the tokenizer in .*base changed after the study was planned"):
        bench.data("other-tokenizer", tokenizer="what was planned")
    data = bench.data("fine")
    (bench.base / "generation_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="the weights in .*base changed after the study was planned"):
        bench.generate("outputs", data=data)


def test_no_room_for_a_prompt_is_refused(bench: Bench) -> None:
    if bench.architecture == "gpt2":
        with pytest.raises(DataError, match="max_new_tokens is 24, which leaves no room for a prompt in 24 tokens"):
            bench.data(max_new_tokens=24)
    else:
        bench.data(max_new_tokens=24)  # the decoder has a row of its own


def test_outputs_of_the_base_equal_transformers(bench: Bench) -> None:
    data = bench.data()
    outputs = bench.generate("base-outputs", data=data)
    columns, prompts = read(outputs), TokenDataset.load(data.folder / "test-prompts.npz")
    assert columns["item"] == prompts.items and columns["cluster"] == prompts.clusters
    assert columns["output"] == plain_outputs(bench, prompts)
    assert set(columns["sample"]) == {0}
    assert all(0 < number <= MAX_NEW_TOKENS for number in columns["num_new_tokens"])
    assert outputs.record.values["num_new_tokens"] == sum(columns["num_new_tokens"])


def test_a_phase_teaches_and_answers_from_files_equal_live_ones(bench: Bench) -> None:
    data = bench.data()
    losses = {}
    for name, inputs in (("before", {}), ("after", {"model": bench.train(data)})):
        predicted = bench.run(Predict, f"losses-{name}", {**bench.model, "split": "test", "precision": "fp32"},
                              data=data, **inputs)
        losses[name] = sum(read(predicted, PREDICTIONS)["nll"])
        live = bench.generate(f"live-{name}", data=data, **inputs)
        bench.shared.pop(LIVE)
        again = bench.generate(f"again-{name}", data=data, **inputs)
        assert read(live) == read(again)
        assert live.record.values["answer_digest"] == again.record.values["answer_digest"]
    assert losses["after"] < losses["before"]
    assert read(live) != read(bench.generate("untouched", data=data))


def test_samples_repeat_and_follow_the_seed(bench: Bench) -> None:
    data, found = bench.data(), {}
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        bench.options["decoding"] = {"temperature": 1.0, "top_p": 0.9, "num_samples": 3, "seed": seed}
        found[name] = read(bench.generate(name, data=data))
    assert found["first"] == found["second"] != found["other"]
    assert found["first"]["sample"] == [0, 1, 2] * 6
    assert len(set(found["first"]["output"])) > 6
    bench.options["decoding"] = {"num_samples": 0, "seed": 0}
    with pytest.raises(UserError, match="num_samples is 0"):
        bench.generate("none", data=data)


def test_beams_and_constraints_of_the_spec_are_kept(bench: Bench) -> None:
    """Equal to `decode`, and other outputs than the most likely token each time."""
    from finetrial.generate import Beams, Constraints, decode
    from finetrial.models.load import load_base

    data, base = bench.data(), load_base(bench.base)
    prompts = TokenDataset.load(data.folder / "test-prompts.npz")
    how = {"num_beams": 3, "length_penalty": 0.5, "no_repeat_ngram_size": 1, "min_new_tokens": 6}
    bench.options["decoding"] = {"do_sample": False, **how}
    found = read(bench.generate("searched", data=data))
    expected = decode(base.model, base.tokenizer, [prompts.row(row) for row in range(len(prompts))], max_new_tokens=MAX_NEW_TOKENS,
                      beams=Beams(3, 0.5), constraints=Constraints(1, 6))
    assert found["num_new_tokens"] == [len(answer.ids) for answer in expected] and min(found["num_new_tokens"]) > 6
    assert [output.split() for output in found["output"]] == [
        base.tokenizer.decode(answer.without_end, skip_special_tokens=True).split() for answer in expected]
    assert found["output"] != read(bench.generate("greedy", data=data))["output"]


def test_a_deadline_ends_it(bench: Bench) -> None:
    data = bench.data()
    bench.options["deadline"] = 0.0
    with pytest.raises(StageTimeout):
        bench.generate("late", data=data)


def test_the_constant_floor_is_the_most_frequent_answer(tmp_path: Path, tiny_model: Any) -> None:
    bench = Bench(tmp_path, "gpt2", tiny_model)
    path = Path(bench.task["path"])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        row["completion"] = "w5 w6 w7" if number % 2 else row["completion"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert set(read(bench.data(num_test=5), "test-texts.parquet")["floor:constant"]) == {"w5 w6 w7"}
