"""Conversations rendered by a tokenizer's chat template: against the library's own rendering and tokenisation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from finetrial.errors import DataError
from finetrial.models.load import load_tokenizer
from finetrial.plan.bases import resolve_base
from finetrial.plan.build import build
from finetrial.spec.io import parse_study
from finetrial.spec.uses import Base
from finetrial.tasks.base import Example, Segment, Task
from finetrial.tasks.chat import DAY, as_text, closing_mark, earlier_segments, in_chat_form, reply_opening
from finetrial.tasks.cnn_dailymail import CnnDailymail
from finetrial.tasks.encode import encode_examples, encode_prompts, encode_segments
from finetrial.tasks.mbpp import Mbpp
from finetrial.tasks.prompt_completion import PromptCompletion
from finetrial.tasks.pycode import Pycode
from finetrial.tasks.pydoc_chat import PydocChat
from finetrial.tasks.pydoc_summary import PydocSummary
from finetrial.tasks.space_mark import written

CHATML = ("{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] | trim + '<|end|>\n' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}")
OPENED = "{{ bos_token }}" + CHATML  # as Llama's and Gemma's do
LETTERS = ("{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '</s>\n' }}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}")  # TinyLlama's: marks of roles are plain text
SPECIALS = ("{% for m in messages %}{{ '<|turn|>' + m['role'] + ' <|turn|>' + m['content'] + '</s>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|turn|>' }}{% endif %}")
BREAKS = LETTERS.replace("<|assistant|>\n", "<|assistant|>")  # TinyLlama's, as it is: a line break opens the reply
SPACES = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
          "{% else %}{{ ' ' + m['content'] + ' </s>' }}{% endif %}{% endfor %}")  # Llama 2's and Mistral's
MESSAGES = [{"role": "system", "content": "w1 w2"}, {"role": "user", "content": "w3"},
            {"role": "assistant", "content": "w4 <|end|>"}, {"role": "user", "content": "w5 w6"},
            {"role": "assistant", "content": "w7 w8"}]


def chat_tokenizer(template: str | None, *, opens: bool = False) -> Any:
    words = ["<unk>", "<|start|>", "<|end|>", "<s>", "system", "user", "assistant", "<", "|", "start", "end", ">", "\n",
             *(f"w{index}" for index in range(1, 60))]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", bos_token="<s>", unk_token="<unk>",
                                        additional_special_tokens=["<|start|>"])
    if opens:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
        tokenizer.backend_tokenizer.post_processor = core.post_processor
    tokenizer.chat_template = template
    return tokenizer


def rows(folder: Path, messages: Any = MESSAGES) -> tuple[Task, list[Example]]:
    path = folder / "chats.jsonl"
    path.write_text("\n".join(json.dumps({"messages": messages}) for _ in range(1)))
    task = PromptCompletion(train=str(path))
    return task, task.load().split("train")


@pytest.mark.parametrize(("template", "opens"), [(CHATML, False), (OPENED, True), (CHATML, True)])
def test_the_prompt_is_what_the_library_makes(template: str, opens: bool, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(template, opens=opens)
    said = [*MESSAGES[:2], {**MESSAGES[2], "content": "w4"}, *MESSAGES[3:]]
    task, examples = rows(tmp_path, said)
    prompts, _ = encode_prompts(in_chat_form(task, tokenizer), examples, tokenizer, 64, max_new_tokens=8)
    written = tokenizer.apply_chat_template(said[:-1], tokenize=False, add_generation_prompt=True)
    expected = tokenizer(written.removeprefix("<s>"))["input_ids"]  # the mark that opens a text stands there once
    assert prompts.row(0) == expected and expected.count(3) == int(opens)
    dataset, _ = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, 64)
    assert dataset.row(0) == [*expected, *tokenizer("w7 w8", add_special_tokens=False)["input_ids"], 2]
    assert dataset.loss_mask.tolist() == [False] * len(expected) + [True] * 3


def test_a_reply_ends_as_the_template_closes_it(tmp_path: Path) -> None:
    """Where the tokenizer's end token is another one, the mark of the template takes its place, and has no bytes."""
    tokenizer = chat_tokenizer(CHATML)
    tokenizer.add_special_tokens({"eos_token": "<s>", "additional_special_tokens": ["<|start|>", "<|end|>"]})
    assert closing_mark(tokenizer) == "<|end|>" and closing_mark(chat_tokenizer("{{ messages[0]['content'] }}")) == ""
    task, examples = rows(tmp_path)
    dataset, _ = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, 64)
    plain = chat_tokenizer(CHATML)
    usual, _ = encode_examples(in_chat_form(task, plain), examples, plain, 64)
    assert dataset.row(0) == usual.row(0) and dataset.row(0)[-1] == 2
    assert dataset.loss_mask.tolist() == usual.loss_mask.tolist() and dataset.num_bytes.tolist() == usual.num_bytes.tolist()
    prompts, _ = encode_prompts(in_chat_form(task, tokenizer), examples, tokenizer, 64, max_new_tokens=8)
    assert [*prompts.row(0), *dataset.row(0)[-3:]] == dataset.row(0)


@pytest.mark.parametrize("how", ["prepend", "always", "first", "bytes", "none"])
@pytest.mark.parametrize("template", [LETTERS, SPECIALS])
def test_one_space_mark_as_the_library_has_it(how: str, template: str, tmp_path: Path) -> None:
    """Llama 2 and its like write "▁" before a text, not before each of the segments in which it is tokenised."""
    tokenizer = marking_tokenizer(how)
    tokenizer.chat_template = template
    said = [{"role": "user", "content": "Hi you"}, {"role": "assistant", "content": "So"}, {"role": "user", "content": "No so"},
            {"role": "assistant", "content": "Hi So"}]
    task, examples = rows(tmp_path, said)
    prompts, _ = encode_prompts(in_chat_form(task, tokenizer), examples, tokenizer, 128, max_new_tokens=8)
    text = tokenizer.apply_chat_template(said[:-1], tokenize=False, add_generation_prompt=True)
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompts.row(0) == expected
    assert expected == tokenizer.apply_chat_template(said[:-1], add_generation_prompt=True, return_dict=False)
    dataset, _ = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, 128)
    whole = tokenizer(text + "Hi So</s>", add_special_tokens=False)["input_ids"]
    assert dataset.row(0) == whole and dataset.num_bytes[0] == len("Hi So")


@pytest.mark.parametrize("how", ["prepend", "always", "first", "bytes", "none"])
@pytest.mark.parametrize(("template", "opening"), [(BREAKS, "\n"), (SPACES, " "), (LETTERS, ""), (SPECIALS, "")])
def test_a_reply_opens_as_the_template_has_it(how: str, template: str, opening: str, tmp_path: Path) -> None:
    """The prompt ends where the template asks, and the row is what the template makes of the whole conversation."""
    tokenizer = marking_tokenizer(how)
    tokenizer.chat_template = template
    assert reply_opening(tokenizer) == opening
    said = [{"role": "user", "content": "Hi you"}, {"role": "assistant", "content": "So"}, {"role": "user", "content": "No so"},
            {"role": "assistant", "content": "Hi So"}]
    task, examples = rows(tmp_path, said)
    text = tokenizer.apply_chat_template(said[:-1], tokenize=False, add_generation_prompt=True)
    dataset, _ = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, 128)
    assert dataset.row(0) == tokenizer(f"{text}{opening}Hi So</s>", add_special_tokens=False)["input_ids"]
    prompts, _ = encode_prompts(in_chat_form(task, tokenizer), examples, tokenizer, 128, max_new_tokens=8)
    assert prompts.row(0) == dataset.row(0)[:len(prompts.row(0))] == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("how", ["prepend", "always", "first", "bytes", "words", "none"])
def test_a_plain_row_is_one_text_too(how: str) -> None:
    tokenizer = marking_tokenizer(how)
    segments = [Segment("Hi you\n", cuttable=True), Segment(""), Segment("So\n"), Segment("Hi So", loss=True)]
    whole = tokenizer("Hi you\nSo\nHi So", add_special_tokens=False)["input_ids"]
    row = encode_segments(segments, tokenizer, 64)
    assert row.ids == [*whole, tokenizer.eos_token_id] and row.target_bytes == len("Hi So")
    pair = encode_segments(segments, tokenizer, 64, form="encoder-decoder")
    assert pair.source == tokenizer("Hi you\nSo\n", add_special_tokens=False)["input_ids"]
    assert pair.ids == [*tokenizer("Hi So", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert encode_segments([Segment(""), Segment("Hi So", loss=True)], tokenizer, 64).ids == pair.ids


def test_what_is_written_keeps_its_depth() -> None:
    """Llama 2's tokenizer takes one space from the beginning of what it decodes: a line of code would lose it."""
    tokenizer = marking_tokenizer("prepend")
    tokenizer.backend_tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(),
                                                             decoders.Strip(" ", 1, 0)])
    prompt = tokenizer("Hi you\n", add_special_tokens=False)["input_ids"]
    ids = tokenizer.convert_tokens_to_ids(["▁", "▁", "▁", "▁Hi"])
    assert written(tokenizer, prompt, ids, form="decoder") == "    Hi" and tokenizer.decode(ids) == "   Hi"
    assert written(tokenizer, prompt, ids, form="encoder-decoder") == "   Hi"
    assert written(tokenizer, prompt, ids[:2], form="decoder") == "  "


@pytest.mark.parametrize("how", ["prepend", "always", "first", "none"])
def test_what_is_learned_behind_a_special_token_is_read_as_it_was_written(how: str) -> None:
    tokenizer = marking_tokenizer(how)
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace() if how == "first" else decoders.Sequence([
        decoders.Replace("▁", " "), decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] if how != "none" else [])])
    row = encode_segments([Segment("Hi"), Segment("<|turn|>", markup=True), Segment("So", loss=True)], tokenizer, 64)
    prompt, answer = row.ids[:row.loss_mask.index(True)], row.ids[row.loss_mask.index(True):-1]
    assert prompt[-1] == tokenizer.convert_tokens_to_ids("<|turn|>")
    assert written(tokenizer, prompt, answer, form="decoder") == "So"


def test_a_character_begun_in_the_prompt_is_written_alone() -> None:
    tokenizer = load_tokenizer(resolve_base(Base(name="tiny-gpt")).folder)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    ids = tokenizer("ab\N{SNOWMAN} c")["input_ids"]
    place = next(place for place in range(1, len(ids)) if "\N{REPLACEMENT CHARACTER}" in tokenizer.decode(ids[:place]))
    assert written(tokenizer, ids[:place], ids[place:], form="decoder") == tokenizer.decode(ids[place:])


def marking_tokenizer(how: str) -> Any:
    """Letters, and "▁Hi" beside "Hi"; `how` a mark is put before a text."""
    letters = ["<unk>", "</s>", "<|turn|>", "▁", *sorted(set("\n<|>HiyouSNserantĠĊ")), "Hi", "▁Hi", "ĠHi", "So", "▁So", "ĠSo"]
    core = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)},
                                [("H", "i"), ("▁", "Hi"), ("Ġ", "Hi"), ("S", "o"), ("▁", "So"), ("Ġ", "So")], unk_token="<unk>"))
    if how == "prepend":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif how in ("always", "first"):
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=how, split=False)
    elif how == "words":  # T5
        core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=how == "bytes")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>",
                                        additional_special_tokens=["<|turn|>"])
    return tokenizer


def test_what_people_wrote_makes_no_special_tokens(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(CHATML)
    task, examples = rows(tmp_path)
    prompts, _ = encode_prompts(in_chat_form(task, tokenizer), examples, tokenizer, 64, max_new_tokens=8)
    assert prompts.row(0).count(2) == 4  # of the turns; the one that is spelled out is none


def test_the_plain_form_without_a_template(tmp_path: Path) -> None:
    task, _ = rows(tmp_path)
    assert in_chat_form(task, chat_tokenizer(None)) is task
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "w1 ", "completion": "w2"}')
    task = PromptCompletion(train=str(pairs))
    example = task.load().rows[0]
    assert in_chat_form(task, chat_tokenizer(CHATML)).render(example) == task.render(example)


LONG = [{"role": "system", "content": "w1 w2"}, {"role": "user", "content": "w11 w12 w13"}, {"role": "assistant", "content": "w14 w15"},
        {"role": "user", "content": "w21"}, {"role": "assistant", "content": "w22 w23"}, {"role": "user", "content": "w31"},
        {"role": "assistant", "content": "w32"}]


@pytest.mark.parametrize("num_dropped", [0, 1, 2])
def test_the_oldest_exchanges_go_first_and_whole(num_dropped: int, tmp_path: Path) -> None:
    """What is left is what the template makes of the conversation without them; system turn and question stay."""
    tokenizer = chat_tokenizer(CHATML)
    left = [LONG[0], *LONG[1 + 2 * num_dropped:]]
    expected = tokenizer(tokenizer.apply_chat_template(left, tokenize=False).rstrip("\n"))["input_ids"]
    task, examples = rows(tmp_path, LONG)
    dataset, report = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, len(expected))
    assert dataset.row(0) == expected and report.num_cut == (num_dropped > 0)
    shorter, report = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, len(expected) + 3)
    assert shorter.row(0) == expected, "an exchange that does not fit goes whole"


def test_what_the_system_is_told_is_never_cut(tmp_path: Path) -> None:
    """It is an instruction: a row that has no room for it is dropped, and counted."""
    tokenizer = chat_tokenizer(CHATML)
    task, examples = rows(tmp_path, LONG)
    asked, _ = encode_examples(in_chat_form(task, tokenizer), rows(tmp_path, [LONG[0], *LONG[5:]])[1], tokenizer, 99)
    for room, kept in ((len(asked.row(0)), 1), (len(asked.row(0)) - 1, 0)):
        dataset, report = encode_examples(in_chat_form(task, tokenizer), examples, tokenizer, room)
        assert (len(dataset), report.num_dropped) == (kept, 1 - kept)
    assert not any(one.cuttable for one in earlier_segments(as_text([("system", "Be brief."), ("user", "a")]), "user") if one.exchange == 0)


def test_a_plain_conversation_loses_its_oldest_exchanges_too(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(None)
    task, examples = rows(tmp_path, LONG)
    whole = "".join(segment.text for segment in task.render(examples[0]))
    assert whole.startswith(examples[0].fields["history"]) and whole.count("w") == 12
    short, _ = encode_examples(task, rows(tmp_path, [LONG[0], *LONG[3:]])[1], tokenizer, 99)
    dataset, _ = encode_examples(task, examples, tokenizer, len(short.row(0)) + 2)
    assert dataset.row(0) == short.row(0)
    assert [segment.exchange for segment in earlier_segments(as_text([("assistant", "a"), ("user", "b"), ("user", "c")]), "user")] == [
        0, 1, 2]


def test_a_template_that_writes_the_date() -> None:
    template = "{{ strftime_now('%Y-%m-%d') }}" + CHATML
    example = Example("1", "1", "train", {"code": "def f(): pass", "reply": "Does nothing."})
    first, *_ = in_chat_form(PydocChat(), chat_tokenizer(template)).render(example)
    assert first.text.startswith(DAY.strftime("%Y-%m-%d") + "<|start|>user") and first.markup


@pytest.mark.parametrize(("template", "said"), [
    ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}", "no system role"),
    ("{{ messages[1]['content'] }}", "leaves out or repeats")])
def test_a_template_that_refuses(template: str, said: str, tmp_path: Path) -> None:
    task, examples = rows(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        in_chat_form(task, chat_tokenizer(template)).render(examples[0])
    assert "chats.jsonl" in caught.value.problem


@pytest.mark.parametrize(("written", "expected"), [
    ({"eos_token_id": [7, 3]}, [3, 7]), ({"eos_token_id": 3}, [3]), ({"temperature": 1.0}, None),
    ({"eos_token_id": 0, "_from_model_config": True}, None)])
def test_the_end_tokens_of_a_base_are_in_the_key(written: dict[str, Any], expected: list[int] | None, tmp_path: Path) -> None:
    """A file that only copies config.json says nothing that was not known."""
    from tiny_study import tiny_content

    from finetrial.plan import specs

    tiny_content(tmp_path)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": 0}))
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(written))
    base = resolve_base(Base(name="mine", source=str(tmp_path / "model")))
    assert specs.ends(base).get("end_tokens") == expected


@pytest.mark.parametrize("as_file", [False, True])
def test_the_template_is_in_the_key(as_file: bool, tmp_path: Path) -> None:
    from tiny_study import tiny_content

    content = tiny_content(tmp_path)
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": MESSAGES}))
    content["tasks"][0]["task"] = {"kind": "prompt-completion", "path": "chats.jsonl"}

    def specs() -> dict[str, Any]:
        plan = build(parse_study(content, "study"), relative_to=tmp_path)
        return {stage.id: stage.spec for stage in plan.stages if stage.kind == "data"}

    assert "chat_template" not in specs()["data/mine/new"]
    config = tmp_path / "model" / "tokenizer_config.json"
    if as_file:
        (tmp_path / "model" / "chat_template.jinja").write_text(CHATML)
    else:
        named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
        config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": named}))
    made = specs()
    assert set(made["data/mine/new"]["chat_template"]) == {"digest", "version"}
    assert "chat_template" not in made["data/mine/old"]
    assert resolve_base(Base(name="mine", source=str(tmp_path / "model"))).chat_template == CHATML
    assert in_chat_form(PydocChat(), load_tokenizer(tmp_path / "model")) != PydocChat()  # the library reads it, too


@pytest.mark.parametrize(("task", "fields"), [
    (CnnDailymail(path="x"), {"article": "w1 w2 w3", "highlights": "w9"}), (PydocSummary(), {"document": "w1 w2 w3", "summary": "w9"}),
    (Pycode(), {"description": "w1 w2 w3", "signature": "w4", "body": "w9"}), (Mbpp(path="x"), {"text": "w1 w2 w3", "tests": "w4", "code": "w9", "setup": ""})])
def test_an_instruction_is_asked_and_its_target_replied(task: Task, fields: dict[str, str]) -> None:
    """A base that was tuned on a template reads instructions in it; what is cut is the document still."""
    tokenizer = chat_tokenizer(CHATML)
    example = Example("a", "a", "test", fields)
    prompt = "".join(segment.text for segment in task.render(example) if not segment.loss)
    chat = in_chat_form(task, tokenizer)
    said = [{"role": "user", "content": prompt.rstrip()}, {"role": "assistant", "content": "w9"}]
    dataset, report = encode_examples(chat, [example], tokenizer, 200)
    assert dataset.row(0) == tokenizer.apply_chat_template(said, tokenize=True, return_dict=False)[:len(dataset.row(0))]
    assert dataset.ids[dataset.loss_mask.argmax()] == tokenizer.convert_tokens_to_ids("w9")
    short, report = encode_examples(chat, [example], tokenizer, len(dataset.row(0)) - 2)
    assert report.num_cut_tokens == 2 and short.row(0)[:3] == dataset.row(0)[:3] and short.row(0)[-4:] == dataset.row(0)[-4:]
    assert chat.texts(example) == task.texts(example)
    assert in_chat_form(task, chat_tokenizer(None)) is task
