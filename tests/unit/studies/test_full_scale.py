"""What the studies at full scale ask of the hub, against what it has: names of files, as its pages list them.

No network: the lists hold what matters to the patterns by which files are fetched. Those of codet5-small, OASST1 and WikiText
were read on the hub's pages, those of gpt2, TinyLlama and Gemma in copies; those of CNN/DailyMail and CodeXGLUE are assumed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

import pytest

from finetrial.cli.study import built_in_studies
from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.plan.hub_configs import known_config
from finetrial.spec.study import Study
from finetrial.studies.lora_vs_layer import LoraVsLayer
from finetrial.studies.plasticity_stability import PlasticityStability
from finetrial.studies.rank_low_data import RankLowData
from finetrial.tasks.published import PublishedTask

WEIGHTS = "model*.safetensors"
BASES = {  # repository and revision -> its files
    ("openai-community/gpt2", "main"): ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin"],
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "main"): ["config.json", "model.safetensors", "tokenizer.json"],
    ("google/gemma-2b-it", "main"): ["config.json", "model-00001-of-00002.safetensors", "tokenizer.json",
                                     "model-00002-of-00002.safetensors", "gemma-2b-it.gguf"],
    ("Salesforce/codet5-small", "main"): ["config.json", "pytorch_model.bin", "vocab.json", "merges.txt"],
    ("Salesforce/codet5-small", "refs/pr/1"): ["config.json", "pytorch_model.bin", "model.safetensors", "vocab.json",
                                               "merges.txt"]}
DATA = {
    "OpenAssistant/oasst1": ["data/train-00000-of-00001-b42a775f407cee45.parquet", "2023-04-12_oasst_all.trees.jsonl.gz",
                             "data/validation-00000-of-00001-134b8fd0c89408b6.parquet"],
    "Salesforce/wikitext": [f"wikitext-2-{kind}/{split}-00000-of-00001.parquet" for kind in ("raw-v1", "v1")
                            for split in ("train", "validation", "test")],
    "abisee/cnn_dailymail": [f"{version}/{name}.parquet" for version in ("1.0.0", "2.0.0", "3.0.0") for name in (
        "train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003", "validation-00000-of-00001",
        "test-00000-of-00001")],
    "google/code_x_glue_ct_code_to_text": [f"{language}/{split}-00000-of-00001.parquet" for language in (
        "go", "java", "javascript", "php", "python", "ruby") for split in ("train", "validation", "test")]}


def _studies() -> Iterator[Study]:
    for built_in in built_in_studies().values():
        yield from (built_in().study("full", size) for size in built_in.sizes["full"])


@pytest.mark.parametrize("study", list(_studies()), ids=lambda study: f"{study.name}-{study.size}")
def test_the_hub_has_what_is_asked_for(study: Study) -> None:
    for base in study.bases:
        names = BASES[base.source, base.revision or "main"]
        assert "config.json" in names and fnmatch.filter(names, WEIGHTS)
        assert known_config(base.source) is not None  # so that it can be planned before it is fetched
    for use in study.tasks:
        if isinstance(use.task, PublishedTask):
            splits = [split for pattern, split in use.task.hub_files().items()
                      if fnmatch.filter(DATA[use.task.repository], pattern)]
            assert splits == list(use.task.hub_files().values()) and "test" in splits


@pytest.mark.parametrize("study", list(_studies()), ids=lambda study: f"{study.name}-{study.size}")
def test_every_lora_of_a_study_has_one_dropout(study: Study) -> None:
    assert len({component.method.dropout for arm in study.arms for components in arm.components.values()
                for component in components if isinstance(component.method, Lora)}) == 1


def test_the_published_budget_of_lora_vs_layer_runs_the_published_arms() -> None:
    study = LoraVsLayer().study("full", "published-budget")
    published = {arm.name: arm.components["*"][0].method for arm in study.arms}
    assert published["lora-r16"] == Lora(rank=16, targets="attention")
    assert published["layer"] == Layer(stack="encoder", init="random", output_scale=0.01)
    assert study.controls.reference == "lora-r16"
    assert [use.num_val for use in study.tasks if isinstance(use.task, PublishedTask)] == [2_000] * 2


def test_every_size_of_plasticity_stability_has_its_controls() -> None:
    for size in PlasticityStability.sizes["full"]:
        controls = PlasticityStability().study("full", size).controls
        assert controls.single_task and controls.joint


def test_two_models_are_not_called_one_tuned_and_untuned() -> None:
    study = RankLowData().study("full", "standard")
    (instructed,) = (one for one in study.hypotheses if one.name == "H4")
    assert "gemma" in instructed.statement and "tinyllama" in instructed.statement
    assert any("H4 compares the two as they are" in note for note in study.notes)
