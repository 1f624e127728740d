"""Rules that look at the data as encoded: rows of real files, made by the `data` stage with a bundled tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from audit_designs import (
    Rows,
    audited,
    documents,
    fair_content,
    fair_files,
    files_of,
    fired,
    pairs,
    prepared,
    recorded,
    write_rows,
    write_text,
)

from finetrial.plan.audit import audit_data, cut_prompts, truncated_targets
from finetrial.plan.audit.cut_prompts import CutPrompts
from finetrial.plan.audit.truncated_cues import lost_ends
from finetrial.plan.audit.truncated_targets import TruncatedTargets
from finetrial.plan.bases import BUNDLED
from finetrial.spec.io import parse_study
from finetrial.stages.base import StageInput
from finetrial.tasks.encoded import TokenDataset
from finetrial.tasks.sources.corpus import corpus_digest
from finetrial.tasks.splits import CORPUS_SHARES, hashed_split


def audited_with(folder: Path, **changes: Any) -> set[tuple[str, str]]:
    return fired(audited(fair_content(**changes), folder))


def changed(folder: Path, name: str, change: Callable[[Rows], Rows]) -> Path:
    """The fair files with one of them rewritten."""
    fair_files(folder)
    path = folder / name
    write_rows(path, change([json.loads(line) for line in path.read_text().splitlines()]))
    return folder


def with_words(row: Mapping[str, str], count: int) -> dict[str, str]:
    """The row with its first words replaced."""
    head, _, rest = row["prompt"].partition("Text: ")[2].partition("\nSummary:")
    words = head.split()
    return {**row, "prompt": "Text: " + " ".join(["other"] * count + words[count:]) + "\nSummary:" + rest}


def test_fair_files_raise_nothing(tmp_path: Path) -> None:
    assert audited_with(fair_files(tmp_path)) == set()


def test_test_rows_that_are_nearly_in_training(tmp_path: Path) -> None:
    test = [json.loads(line) for line in (fair_files(tmp_path) / "new-test.jsonl").read_text().splitlines()]
    changed(tmp_path, "new-train.jsonl", lambda rows: rows[:-3] + [with_words(row, 2) for row in test[:3]])
    assert audited_with(tmp_path) == {("held-out-rows-in-training", "threat")}


def test_rows_that_share_half_of_their_words_are_no_twins(tmp_path: Path) -> None:
    test = [json.loads(line) for line in (fair_files(tmp_path) / "new-test.jsonl").read_text().splitlines()]
    changed(tmp_path, "new-train.jsonl", lambda rows: rows[:-3] + [with_words(row, 15) for row in test[:3]])
    assert audited_with(tmp_path) == set()


def test_a_row_of_another_tasks_test_in_training(tmp_path: Path) -> None:
    fair_files(tmp_path)
    texts = documents(60, seed=22)
    prompts = [{"prompt": text[:-20], "completion": text[-20:]} for text in texts[:2]]  # the same text, as a pair
    changed(tmp_path, "new-train.jsonl", lambda rows: rows + prompts)
    write_text(tmp_path / "old-test.txt", texts)
    assert audited_with(tmp_path) == {("held-out-rows-in-training", "threat")}


def test_test_rows_in_validation_are_a_warning(tmp_path: Path) -> None:
    test = [json.loads(line) for line in (fair_files(tmp_path) / "new-test.jsonl").read_text().splitlines()]
    changed(tmp_path, "new-val.jsonl", lambda rows: rows[:-1] + [with_words(test[0], 1)])
    assert audited_with(tmp_path, tasks=[fair_content()["tasks"][0] | {"num_val": 20}], controls=None) == {
        ("held-out-rows-in-training", "warning")}


def test_prompts_that_the_loader_moved_out_of_training(tmp_path: Path) -> None:
    study = parse_study(fair_content(), "study")
    plan, lookup = prepared(study, fair_files(tmp_path))

    def with_mining(dropped: int) -> Callable[[str], StageInput | None]:
        def look(stage: str) -> StageInput | None:
            there = lookup(stage)
            if there is None or not stage.endswith("/new"):
                return there
            mining = {"dropped": {"prompt or document in a split held out before": dropped}}
            by_id = {one.id: one for one in plan.stages}
            return recorded(by_id[stage], {**there.record.values, "mining": mining}, there.folder)
        return look

    assert fired(audit_data(study, plan, with_mining(60))) == {("held-out-rows-in-training", "warning")}
    assert fired(audit_data(study, plan, with_mining(0))) == set()


def on_base(folder: Path, manifest: dict[str, Any] | None) -> dict[str, Any]:
    """A copy of the bundled base with another manifest."""
    base = folder / f"base-{len(list(folder.glob('base-*')))}"
    base.mkdir()
    for path in (BUNDLED / "tiny-gpt").iterdir():
        if path.name != "manifest.json":
            (base / path.name).symlink_to(path)
    if manifest is not None:
        (base / "manifest.json").write_text(json.dumps(manifest))
    return {"bases": [{"name": "mine", "source": str(base)}]}


def test_what_a_base_has_read(tmp_path: Path) -> None:
    def rows_of(split: str, count: int, seed: int) -> Rows:
        """Rows whose clusters hash into a split of the embedded corpus."""
        names = (f"pack/{seed}-{number}.py" for number in range(10_000))
        clusters = [name for name in names if hashed_split(name, CORPUS_SHARES) == split]
        return [{**row, "cluster": cluster} for row, cluster in zip(pairs(count, seed=seed), clusters, strict=False)]

    fair_files(tmp_path)
    for split, count in {"train": 120, "val": 20, "test": 60}.items():
        write_rows(tmp_path / f"new-{split}.jsonl", rows_of(split, count, seed=count))
    study = parse_study(fair_content(), "study")
    plan, _ = prepared(study, tmp_path)
    source = next(stage for stage in plan.stages if stage.id.endswith("/new")).spec["source"]
    assert audited_with(tmp_path, **on_base(tmp_path, {"corpus_digest": source})) == set()
    assert audited_with(tmp_path, **on_base(tmp_path, {"corpus_digest": "of another corpus"})) == set()
    findings = audited(fair_content(**on_base(tmp_path, None)), tmp_path)
    assert fired(findings) == set() and "not known" in findings[-1].message  # a note

    write_rows(tmp_path / "new-test.jsonl", rows_of("test", 59, seed=60) + rows_of("pretrain", 1, seed=61))
    study = parse_study(fair_content(), "study")
    plan, _ = prepared(study, tmp_path)
    source = next(stage for stage in plan.stages if stage.id.endswith("/new")).spec["source"]
    assert audited_with(tmp_path, **on_base(tmp_path, {"corpus_digest": source})) == {("seen-in-pretraining", "threat")}


def test_a_base_of_another_version_of_the_corpus(tmp_path: Path) -> None:
    content = fair_content(**on_base(tmp_path, {"corpus_digest": "older"}))
    study = parse_study(content, "study")
    plan, lookup = prepared(study, fair_files(tmp_path))
    for stage in plan.stages:  # as if the task were made of the embedded corpus
        if stage.id.endswith("/new"):
            stage.spec["source"] = corpus_digest()  # type: ignore[index]
    found = audit_data(study, plan, lookup)
    assert ("seen-in-pretraining", "warning") in fired(found)


def test_targets_that_do_not_fit(tmp_path: Path) -> None:
    long = " and ".join(["longer"] * 300)

    def some_long(share: float) -> Callable[[Rows], Rows]:
        return lambda rows: [{**row, "completion": f" {long} {at}"} if at < share * len(rows) else row
                             for at, row in enumerate(rows)]

    assert audited_with(changed(tmp_path, "new-train.jsonl", some_long(0.05))) == set()
    assert audited_with(changed(tmp_path, "new-train.jsonl", some_long(0.2))) == {("truncated-targets", "warning")}
    assert audited_with(changed(tmp_path, "new-train.jsonl", some_long(0.6))) == {("truncated-targets", "threat")}


def test_plain_text_beyond_the_sequence_length(tmp_path: Path) -> None:
    fair_files(tmp_path)
    tasks = [{**fair_content()["tasks"][1], "role": "learn"}]
    alone = {"tasks": tasks, "controls": None, "hypotheses": []}
    assert audited_with(tmp_path, **alone) == set()
    short = [{**tasks[0], "max_tokens": 24}]
    assert audited_with(tmp_path, **{**alone, "tasks": short}) == {("truncated-targets", "warning")}
    assert ("truncated-targets", "warning") in audited_with(tmp_path, **{**alone, "tasks": short, "bases": ["tiny-t5"]})
    outside = [fair_content()["tasks"][0], {**fair_content()["tasks"][1], "max_tokens": 24}]
    assert audited_with(tmp_path, tasks=outside) == set(), "the beginning of an old text is as good a measure: a note"


def long_documents(rows: Rows, every: int) -> Rows:
    """Every so many prompts hold a document that does not fit."""
    texts = documents(len(rows), seed=77, length=300)
    return [{**row, "prompt": f"Text: {texts[at]}\nSummary:"} if at % every == 0 else row for at, row in enumerate(rows)]


def test_a_cue_that_is_cut_off(tmp_path: Path) -> None:
    assert audited_with(changed(tmp_path, "new-test.jsonl", lambda rows: long_documents(rows, 5))) == {
        ("truncated-cues", "threat")}


def told(rule: Any, **reports: dict[str, int]) -> list[tuple[str, str]]:
    """What a rule says of a task whose splits were encoded so."""
    task = SimpleNamespace(has_prompts=True, is_learned="train" in reports, max_tokens=128, report=reports.__getitem__,
                           use=SimpleNamespace(name="news", max_new_tokens=48))
    data: Any = SimpleNamespace(tasks=[task])
    study: Any = None
    return [(found.severity, found.message) for found in rule.check_data(study, data)]


def test_prompts_that_lose_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads that a floor is ahead must know that it had the whole document."""
    monkeypatch.setattr(cut_prompts, "is_plain", lambda task, split: False)
    test = {"num_rows": 200, "num_prompts_cut": 60, "num_cut_prompt_tokens": 500, "num_prompt_tokens": 1500}
    [(severity, message)] = told(CutPrompts(), test=test, train={"num_rows": 100, "num_cut": 40})
    assert severity == "note" and message.startswith(
        "30% of the test prompts of news are cut to leave room for 48 new tokens in 128, and with them 25% of the text of all test prompts "
        "(40% of the training rows); what floors copy is whole")
    [(severity, _)] = told(CutPrompts(), test={**test, "num_prompts_cut": 101})
    assert severity == "warning"
    assert told(CutPrompts(), test={**test, "num_prompts_cut": 2}, train={"num_rows": 100, "num_cut": 1}) == []


def test_rows_dropped_for_their_prompts_are_not_blamed_on_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncated_targets, "is_plain", lambda task, split: False)
    test = {"num_rows": 54, "num_dropped": 110, "num_dropped_prompts": 109}
    [(severity, message)] = told(TruncatedTargets(), test=test)
    assert severity == "threat" and "their prompt leaves no room for 48 new tokens in 128" in message and "lower max_new_tokens" in message
    [(_, message)] = told(TruncatedTargets(), test={**test, "num_dropped_prompts": 10})
    assert "their target does not fit into 128 tokens" in message


def test_cues_that_all_prompts_lose_and_prompts_of_which_nothing_is_left() -> None:
    """Where no prompt is whole the cut ones show whether they ask alike; a prompt that is gone asks for nothing."""
    def prompts(*texts: list[int]) -> list[np.ndarray]:
        return [np.array(text, np.int32) for text in texts]

    whole = prompts(*([number, 7, 8] for number in range(6)))
    assert lost_ends(prompts([1, 2, 7, 8], [1, 2, 3, 4], [5]), whole, closing=0) == 2
    assert lost_ends(prompts([1, 2, 3], [4, 5, 6]), [], closing=0) == 2
    assert lost_ends(prompts([1, 7, 8], [4, 7, 8]), [], closing=0) == 0
    assert lost_ends(prompts([1, 2, 9], [4, 5, 9]), [], closing=1) == 2  # the token that closes every text is no cue
    assert lost_ends(prompts([5], [1, 7, 8]), [], closing=0) == 1


def test_a_document_that_is_cut_before_the_cue(tmp_path: Path) -> None:
    plugin = tmp_path / "cued.py"
    plugin.write_text('''
from finetrial.tasks.base import Segment
from finetrial.tasks.prompt_completion import PromptCompletion as _Pairs

class Cued(_Pairs):
    """The cue apart from the document."""

    def render(self, example):
        document = example.fields["prompt"].removesuffix("\\nSummary:")
        return (Segment(document, cuttable=True), Segment("\\nSummary:"), Segment(example.fields["completion"], loss=True))
''')
    from finetrial import catalog

    catalog.add_file(plugin)
    changed(tmp_path, "new-test.jsonl", lambda rows: long_documents(rows, 5))
    tasks = fair_content()["tasks"]
    tasks[0]["task"]["kind"] = "cued"
    assert audited_with(tmp_path, tasks=tasks) == set()


def as_text(rows: Rows) -> list[str]:
    return [row["prompt"] + row["completion"] for row in rows]


def test_prompts_inside_plain_text(tmp_path: Path) -> None:
    fair_files(tmp_path)
    for number, (split, count) in enumerate({"train": 120, "val": 20, "test": 60}.items()):
        write_text(tmp_path / f"chat-{split}.txt", as_text(pairs(count, seed=50 + number, prompt="{}\nTL;DR in brief:")))
    tasks = [{"name": "chat", "task": {"kind": "text", **files_of("chat", "txt")}, "num_val": 20, "num_test": 60}]
    alone = {"controls": None, "hypotheses": []}
    assert audited_with(tmp_path, tasks=tasks, **alone) == {("prompt-in-scored-text", "warning")}
    for number, (split, count) in enumerate({"train": 120, "val": 20, "test": 60}.items()):
        header = [f"A text of the collection of words.\n{text}" for text in documents(count, seed=60 + number)]
        write_text(tmp_path / f"chat-{split}.txt", header)  # the same beginning everywhere is a header, not a prompt
    assert audited_with(tmp_path, tasks=tasks, **alone) == set()


def test_filler_in_targets(tmp_path: Path) -> None:
    def filled(rows: Rows, every: int) -> Rows:
        return [{**row, "completion": row["completion"] + " <pad>" * 12} if at % every == 0 else row
                for at, row in enumerate(rows)]

    assert audited_with(changed(tmp_path, "new-train.jsonl", lambda rows: filled(rows, 2))) == {
        ("padding-trained-on", "threat")}
    assert audited_with(changed(tmp_path, "new-train.jsonl", lambda rows: filled(rows, 10))) == set()


def test_no_padding_is_ever_a_target(tmp_path: Path) -> None:
    """Batches pad, and what they pad with is no target: where the fault cannot come from."""
    from finetrial.train.batch import make_batch

    _, lookup = prepared(parse_study(fair_content(), "study"), fair_files(tmp_path))
    there = lookup("data/tiny-gpt/new")
    assert there is not None
    rows = TokenDataset.load(there.folder / "test.npz").select(range(6))
    batch = make_batch(rows, [(row,) for row in range(6)])
    assert len(batch.target_ids) == int(rows.loss_mask.sum())


@pytest.mark.parametrize(("share", "fires"), [(0.0, False), (0.01, False), (0.02, True)])
def test_a_tokenizer_that_loses_text(tmp_path: Path, share: float, fires: bool) -> None:
    study = parse_study(fair_content(), "study")
    plan, lookup = prepared(study, fair_files(tmp_path))
    found = lookup("data/tiny-gpt/new")
    assert found is not None
    splits = found.record.values["splits"]
    assert splits["test"]["num_checked_bytes"] > 1_000 and splits["test"]["num_lost_bytes"] == 0
    there = {**splits, "test": {**splits["test"], "num_checked_bytes": 5_000, "num_lost_bytes": round(5_000 * share)}}
    by_id = {one.id: one for one in plan.stages}
    changed = recorded(by_id["data/tiny-gpt/new"], {**found.record.values, "splits": there}, found.folder)
    findings = audit_data(study, plan, lambda stage: changed if stage == "data/tiny-gpt/new" else lookup(stage))
    told = [finding.message for finding in findings if finding.rule == "lossy-tokenizer"]
    assert len(told) == fires and all("the tokenizer of tiny-gpt loses 2% of the bytes of new's test targets" in one for one in told)


def test_inputs_that_hold_their_targets(tmp_path: Path) -> None:
    def copied(rows: Rows, every: int) -> Rows:
        texts = documents(len(rows), seed=5, length=20)
        return [{"prompt": f"{texts[at]}\nSummary:", "completion": f" {texts[at]}"} if at % every == 0 else row
                for at, row in enumerate(rows)]

    assert audited_with(changed(tmp_path, "new-test.jsonl", lambda rows: copied(rows, 1))) == {
        ("target-in-input", "threat")}
    assert audited_with(changed(tmp_path, "new-test.jsonl", lambda rows: copied(rows, 10))) == set()


@pytest.mark.parametrize(("clusters", "expected"), [(5, {("few-items", "warning")}), (30, set())])
def test_items_in_few_clusters(tmp_path: Path, clusters: int, expected: set[tuple[str, str]]) -> None:
    changed(tmp_path, "new-test.jsonl", lambda rows: [{**row, "cluster": f"c{at % clusters}"}
                                                      for at, row in enumerate(rows)])
    assert audited_with(tmp_path) == expected


def test_data_that_are_not_there_yet_say_nothing(tmp_path: Path) -> None:
    study = parse_study(fair_content(), "study")
    plan, _ = prepared(study, fair_files(tmp_path))
    assert audit_data(study, plan, lambda stage: None) == ()


def test_prompts_and_completions_that_touch(tmp_path: Path) -> None:
    touching = [{"prompt": row["prompt"].removeprefix("Text: "), "completion": row["completion"].strip()} for row in pairs(300)]
    write_rows(tmp_path / "touching.jsonl", touching)
    task = {"kind": "prompt-completion", "path": "touching.jsonl"}
    alone = {"tasks": [{"name": "new", "task": task, "num_val": 10, "num_test": 20}], "controls": None}
    rows = [row for row in audited(fair_content(**alone), tmp_path) if row.rule == "touching-pairs"]
    assert [row.severity for row in rows] == ["warning"]
    assert "new: prompt and completion touch in 300 of 300 rows ('..." in rows[0].message and "line break" in rows[0].message
    encoder_decoder = fair_content(**alone, bases=["tiny-t5"])
    assert not [row for row in audited(encoder_decoder, tmp_path) if row.rule == "touching-pairs"]
