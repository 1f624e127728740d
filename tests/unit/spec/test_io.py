from pathlib import Path
from typing import Any

import pytest
import yaml

from finetrial.errors import SpecError, UserError
from finetrial.spec import Study
from finetrial.spec.io import parse_study, read_study, set_value, study_yaml
from finetrial.spec.plain import from_yaml


def content(**changes: Any) -> dict[str, Any]:
    return {"name": "s", "question": "?", "bases": ["tiny-gpt"],
            "tasks": [{"name": "new", "task": "pydoc-chat"}, {"name": "old", "task": "python-text", "role": "outside"}],
            "arms": [{"name": "full", "components": "full", "learning_rates": [1e-4]},
                     {"name": "lora", "components": "lora:rank=4", "learning_rates": [1e-3]}],
            "training": {"budget": "40 steps"}, **changes}


def _full(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "components": "full", "learning_rates": [1e-4], **changes}


def _claims(**contrast: Any) -> dict[str, Any]:
    return {"hypotheses": [{"name": "H", "statement": "", "contrast": {"left": "full", "right": "lora", **contrast}}]}


def problems(**changes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_study(content(**changes), "study")
    return str(caught.value)


def test_yaml_round_trip() -> None:
    study = parse_study(content(seeds=5), "study")
    assert parse_study(yaml.safe_load(study_yaml(study)), "copy") == study
    assert study.seeds == (0, 1, 2, 3, 4)
    assert study.arm("lora").for_task("new")[0].method.rank == 4  # type: ignore[attr-defined]


def test_a_study_made_in_python_tells_its_mistakes_as_a_file_does() -> None:
    with pytest.raises(SpecError, match="study my_study: 1 problem\n  - arms.a.learning_rates: 0.001: expected a list"):
        Study(**content(name="my_study", arms=[_full(learning_rates=1e-3)]))
    only_scored = problems(tasks=[{"name": "old", "task": "python-text", "role": "outside"}], **_claims(task="old"))
    assert only_scored == ("study: 1 problem\n  - no task has role: learn; leave `role: outside` out where a task shall be "
                           "trained on")


def test_one_layer_may_be_named_in_a_line() -> None:
    study = parse_study(content(arms=[_full(components="lora:rank=4,targets=c_attn")]), "study")
    assert study.arm("a").for_task("new")[0].method.targets == ("c_attn",)  # type: ignore[attr-defined, union-attr]


def test_options_at_their_default_are_not_written() -> None:
    text = study_yaml(parse_study(content(), "study"))
    assert "routing" not in text and "evaluation" not in text and "clip_norm" not in text


def test_all_problems_at_once_with_the_nearest_name() -> None:
    text = problems(qestion="x", seeds="many", tasks=[{"name": "new", "task": "pydoc-chatt"}])
    assert "3 problems" in text
    assert "did you mean 'question'" in text and "did you mean 'pydoc-chat'" in text and "seeds" in text


@pytest.mark.parametrize(("changes", "said"), [
    ({"training": {"budget": "forty steps"}}, "'forty steps' is not a budget such as '80 steps'"),
    ({"training": {"batch_size": 4}}, "unknown key 'batch_size'"),
    ({"arms": [{"name": "a", "components": "lora:rnk=4", "learning_rates": [1e-3]}]}, "did you mean 'rank'"),
    ({"arms": [{"name": "a", "components": "loora", "learning_rates": [1e-3]}]}, "did you mean 'lora'"),
    ({"arms": [{"name": "a", "components": "full", "learning_rates": [-1.0]}]}, "must be positive"),
    ({"arms": [{"name": "base", "components": "full", "learning_rates": [1.0]}]}, "reserved"),
    ({"controls": {"reference": "fulll"}}, "did you mean 'full'"),
    ({"sequences": [["new", "old"]]}, "unknown task to learn 'old'"),
    ({"hypotheses": [{"name": "H", "statement": "", "contrast": {"left": "full", "right": "lroa", "task": "new"}}]},
     "did you mean 'lora'"),
    ({"hypotheses": [{"name": "H", "statement": "", "contrast": {"left": "full", "right": "lora"}}]}, "needs the task"),
    ({"controls": {"reference": "full"}, "arms": [_full(name="full"), _full(name="full-aa")]},
     "arm name 'full-aa' is that of the A/A control; call the arm something else"),
    ({"controls": {"reference": "full", "positive": {"arm": "full", "task": "old"}},
      "arms": [_full(name="full"), _full(name="full-x10")]}, "arm name 'full-x10' is that of the positive control"),
    ({"arms": [_full(name="lora_r8")]}, "'lora_r8': expected small letters, digits, '.', '+' and '-' (no '_')"),
    ({"arms": [_full(components="lora:r=8")]}, "peft's 'r' is 'rank' here"),
    ({"arms": [_full(components="qlora:rank=8")]}, "QLoRA is the method lora, and `quantization: nf4` of the arm"),
    ({"arms": [_full(components="dora")]}, "DoRA is {kind: peft, options: {r: 8, use_dora: true}}"),
    ({"arms": [_full(components="lora:targets=atention")]}, "option targets of lora: unknown targets 'atention'; did you mean"),
    ({"tasks": [{"name": "new", "task": {"kind": "prompt-completion"}}]}, "prompt-completion: give either `path`"),
    ({"tasks": [{"name": "new", "task": "pydoc-summary", "sampling": {"temperature": 0}}]}, "temperature: 0: Input should be"),
    ({"training": {"budget": "0 steps"}}, "0"),
    ({"plugins": 3}, "plugins: 3: expected a list such as [./my_method.py]"),
    ({"seeds": "three"}, "seeds: 'three': expected how many, or a list such as [0, 1, 2]"),
    ({"arms": [_full(learning_rates=3e-4)]}, "arms.a.learning_rates: 0.0003: expected a list such as [3e-4, 1e-3]"),
    ({"arms": [_full(learning_rates=["fast"])]}, "arms.a.learning_rates.0: 'fast': expected a number"),
    ({"arms": [{"components": "full", "learning_rates": 1}]}, "arms.0.learning_rates: 1: expected a list"),
    ({"accept_threats": 3}, "accept_threats: 3: expected a list, written [first, second]"),
    ({"training": {"budget": 60}}, "a budget has a unit: write '60 steps'"),
    ({"seeds": 0}, "a study needs a seed at least"),
    ({"seeds": -2}, "a study needs a seed at least"),
    ({"seeds": []}, "at least 1 item"),
    ({"seeds": [0, -1]}, "seeds.1: -1: Input should be greater than or equal to 0"),
    ({"seeds": [0, True]}, "true and false are no numbers"),
    ({"size": "../../../x"}, "expected letters, digits, '.', '_' and '-'"),
    ({"training": {"weight_decay": float("inf")}}, "finite number"),
    ({"training": {"batch_sequences": True}}, "true and false are no numbers"),
    ({"arms": [_full(learning_rates=[float("inf")])]}, "finite number"),
    ({"arms": [_full(learning_rates=[float("nan")])]}, "finite number"),
    ({"arms": [_full(learning_rates=[1e-4, 1.0000001e-4])]}, "must differ in their first 6 digits"),
    ({"arms": [_full(learning_rates_for={"new": [1e-4, 1.0000001e-4]})]}, "must differ in their first 6 digits"),
    ({"arms": [_full(num_train=True)]}, "true and false are no numbers"),
    ({"arms": [_full(num_train=-1)]}, "greater than or equal to 1"),
    ({"arms": [_full(components="lora:rank=true")]}, "option rank of lora: true and false are no numbers"),
    ({"tasks": [{"name": "new", "task": {"kind": "jscode", "max_body_characters": True}}]}, "true and false are no numbers"),
    ({"tasks": [{"name": "new", "task": {"kind": "chat", "path": "a.jsonl"}}]},
     "a file of messages, or of prompts and completions, is of kind prompt-completion"),
    ({"arms": [_full(components="lora:alpha=.inf")]}, "finite number"),
    ({"arms": [_full(num_train={"nwe": 100})]}, "num_train for unknown task 'nwe'; did you mean 'new'"),
    ({"arms": [_full(learning_rates_for={"nwe": [1e-3]})]}, "learning_rates_for for unknown task 'nwe'"),
    ({"arms": [_full(learning_rates_for={"*": [1e-3]})]}, "learning_rates_for for unknown task '*'"),
    ({"arms": [_full(components="lora:targets=[q,v]")]}, "{kind: lora, targets: [...]}"),
    (_claims(task="new", phase=2), "phase 2 of the sequence new, which has 1"),
    (_claims(task="new", expect="within", bounds=[0.3, 0.1]), "low below high, got [0.3, 0.1]"),
    (_claims(quantity="learning-rate-ratio", expect="within", bounds=[0, 2]), "bounds on a ratio are positive, got [0, 2]"),
    (_claims(quantity="cost", cost="device"), "unknown cost 'device'"),
    (_claims(quantity="cost", cost="param_trainable"), "did you mean 'params_trainable'"),
    ({"hypotheses": [{"name": "H", "statement": ""}]}, "exactly one of contrast, all_of, any_of"),
])
def test_each_mistake_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in problems(**changes)


def test_set_reaches_items_by_name_and_by_index() -> None:
    plain = parse_study(content(), "study").identity()
    set_value(plain, "tasks.old.num_test=7")
    set_value(plain, "arms.1.learning_rates=[0.5, 1.0]")
    set_value(plain, "training.batch_sequences=3")
    study = parse_study(plain, "changed")
    assert (study.task("old").num_test, study.arm("lora").learning_rates) == (7, (0.5, 1.0))
    assert study.training.batch_sequences == 3


@pytest.mark.parametrize("assignment", ["tasks.odl.num_test=7", "training", "name.x=1"])
def test_set_explains_itself(assignment: str) -> None:
    with pytest.raises(UserError, match="--set"):
        set_value(parse_study(content(), "study").identity(), assignment)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    for name, text in (("broken.yaml", "a: [1,"), ("list.yaml", "- 1"), ("broken.json", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            read_study(tmp_path / name)
    (tmp_path / "rows.csv").write_text("prompt,completion\n")
    with pytest.raises(UserError, match="rows.csv is a file of data, and a study is asked for") as caught:
        read_study(tmp_path / "rows.csv")
    assert "finetrial compare --model MODEL --learn" in caught.value.mend
    with pytest.raises(UserError, match="does not exist"):
        read_study(tmp_path / "none.yaml")


def test_plugins_are_found_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(
        "from finetrial.tasks.base import Examples, Segment, Task\n"
        "class Shout(Task):\n"
        "    def source_digest(self): return 'x'\n"
        "    def load(self): return Examples([], 'x')\n"
        "    def render(self, example): return (Segment('A', loss=True),)\n")
    plain = content(plugins=["./shout.py"])
    plain["tasks"].append({"name": "third", "task": "shout", "role": "outside"})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plain))
    study = read_study(tmp_path / "study.yaml")
    assert isinstance(study, Study) and type(study.task("third").task).__name__ == "Shout"


def quantized(components: Any) -> dict[str, Any]:
    return {"arms": [{"name": "a", "components": components, "quantization": "nf4", "learning_rates": [1e-3]}]}


@pytest.mark.parametrize(("components", "said"), [
    ("full", "full trains or rewrites them; use lora or layer, or leave quantization out"),
    ([{"method": "lora"}, {"method": "unfreeze:last=1", "slot": "top"}], "unfreeze trains or rewrites them"),
    ({"kind": "peft", "options": {"init_lora_weights": "pissa"}}, "peft trains or rewrites them"),
    ({"new": [{"method": "lora", "carry": "merge"}]}, "slot 'main' is to be merged into them")])
def test_what_a_base_in_4_bits_cannot_have(components: Any, said: str) -> None:
    assert said in problems(**quantized(components))


@pytest.mark.parametrize("components", ["lora", "layer", {"kind": "peft", "options": {"use_dora": True}}])
def test_what_a_base_in_4_bits_can_have(components: Any) -> None:
    study = parse_study(content(**quantized(components)), "study")
    assert study.arm("a").quantization == "nf4" and "quantization: nf4" in study_yaml(study)


TWICE = "name: s\ntraining: {budget: 40 steps}\nseeds: 3\ntraining:\n  budget: 80 steps\n"


@pytest.mark.parametrize(("name", "text", "said"), [
    ("study.yaml", TWICE, "line 4: the key 'training' is given twice (first in line 2)"),
    ("study.yaml", "a: {b: 1,\n b: 2}", "line 2: the key 'b' is given twice (first in line 1)"),
    ("study.json", '{"seeds": 3, "seeds": 5}', "the key 'seeds' is given twice"),
])
def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_study(tmp_path / name)
    assert said in caught.value.problem and name in caught.value.problem


def test_a_key_given_twice_by_set_is_refused() -> None:
    with pytest.raises(UserError, match="the key 'budget' is given twice"):
        set_value(content(), "training={budget: 40 steps, budget: 80 steps}")


def test_keys_of_a_merged_mapping_may_be_given_again() -> None:
    text = "deep: {one: &one {<<: &two {a: 1}, a: 2}}\nother: {<<: *one, a: 3}"
    assert from_yaml(text) == {"deep": {"one": {"a": 2}}, "other": {"a": 3}}


@pytest.mark.parametrize("written", ["3", "[3]"])
def test_plugins_that_are_no_files(tmp_path: Path, written: str) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content()) + f"plugins: {written}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="plugins.*: 3: expected a"):
        read_study(tmp_path / "study.yaml")


def test_one_plugin_needs_no_list(tmp_path: Path) -> None:
    (tmp_path / "single.py").write_text("from finetrial.methods.lora import Lora\n\nclass Single(Lora):\n    '''LoRA.'''\n")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content(plugins="single.py")), encoding="utf-8")
    assert read_study(tmp_path / "study.yaml").plugins == ("single.py",)


@pytest.mark.parametrize(("code", "said"), [
    ("x = 1\nclass Broken(:\n", "broken.py, line 2: SyntaxError"),
    ("x = 1\nimport nowhere_to_be_found\n", "broken.py, line 2: ModuleNotFoundError: No module named"),
])
def test_a_plugin_that_cannot_be_imported_is_a_mistake_with_its_line(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "broken.py").write_text(code, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content(plugins=["broken.py"])), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_study(tmp_path / "study.yaml")
    assert said in caught.value.problem
