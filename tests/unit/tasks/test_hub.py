"""Files from the hub: resolved once, recorded, checked from then on; and what is said when it goes wrong."""

from __future__ import annotations

import json

import pytest
from loopback_hub import TOKEN, Fault, LoopbackHub

from finetrial.errors import DataError
from finetrial.tasks.sources import hub as source
from finetrial.tasks.sources.hub import fetch, recorded_commit

REPOSITORY = "owner/name"
SMALL, LARGE = b'{"a": "1"}\n', b'{"a": "some longer line"}\n' * 50
FILES = {"data/train-0.jsonl": LARGE, "data/train-1.jsonl": SMALL, "data/test-0.jsonl": SMALL + LARGE, "README.md": b"#"}
TRAIN = ["data/train-*.jsonl"]


@pytest.fixture
def hub(hub: LoopbackHub) -> LoopbackHub:
    """With one data set."""
    hub.add("dataset", REPOSITORY, FILES)
    return hub


def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def _head(hub: LoopbackHub) -> str:
    return hub.repositories["dataset", REPOSITORY].refs["main"]


def test_files_are_fetched_at_the_commit_of_the_revision(hub: LoopbackHub) -> None:
    assert recorded_commit(REPOSITORY, "main") is None
    snapshot = fetch(REPOSITORY, "main", TRAIN)
    assert {name: path.read_bytes() for name, path in snapshot.files.items()} == {
        name: FILES[name] for name in ("data/train-0.jsonl", "data/train-1.jsonl")}
    assert snapshot.commit == _head(hub) == recorded_commit(REPOSITORY, "main")
    assert _head(hub) in snapshot.provenance and "(main)" in snapshot.provenance
    assert not any("test-0" in request for request in hub.requests)


def test_the_second_time_no_network_is_asked(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch(REPOSITORY, "main", TRAIN)
    hub.requests.clear()
    assert fetch(REPOSITORY, "main", TRAIN) == first
    _offline(monkeypatch)
    assert fetch(REPOSITORY, "main", TRAIN) == first
    assert hub.requests == []


@pytest.mark.parametrize("older", [False, True], ids=["listed", "a record without the listing"])
def test_a_wider_pattern_gives_every_file_that_it_matches(older: bool, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard that was fetched before does not stand for all of them."""
    fetch(REPOSITORY, "main", ["data/train-0*.jsonl"])
    if older:
        (path,) = source.cache_root().glob("hub/*/main.json")
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "names"}))
    assert list(fetch(REPOSITORY, "main", TRAIN).files) == ["data/train-0.jsonl", "data/train-1.jsonl"]
    assert list(fetch(REPOSITORY, "main", TRAIN[:0], optional=["data/*"]).files) == [name for name in sorted(FILES) if "/" in name]
    _offline(monkeypatch)
    assert len(fetch(REPOSITORY, "main", TRAIN).files) == 2


def test_an_older_record_is_listed_once(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch(REPOSITORY, "main", TRAIN)
    (path,) = source.cache_root().glob("hub/*/main.json")
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "names"}))
    assert fetch(REPOSITORY, "main", TRAIN) == first
    _offline(monkeypatch)
    assert fetch(REPOSITORY, "main", TRAIN) == first


def test_a_branch_that_moves_on_is_not_followed(hub: LoopbackHub) -> None:
    first = fetch(REPOSITORY, "main", TRAIN)
    moved = hub.add("dataset", REPOSITORY, {**FILES, "data/train-0.jsonl": SMALL, "data/test-0.jsonl": SMALL})
    assert fetch(REPOSITORY, "main", TRAIN) == first
    test = fetch(REPOSITORY, "main", ["data/test-*"])  # a file fetched later is of the same commit
    assert test.commit == first.commit
    assert test.files["data/test-0.jsonl"].read_bytes() == SMALL + LARGE
    assert fetch(REPOSITORY, moved, TRAIN).files["data/train-0.jsonl"].read_bytes() == SMALL
    assert recorded_commit(REPOSITORY, moved) == moved


@pytest.mark.parametrize("branch", ["v1.0", "refs/convert/parquet"])
def test_tags_and_refs(branch: str, hub: LoopbackHub) -> None:
    commit = hub.add("dataset", REPOSITORY, {"data/train-0.jsonl": SMALL}, branch)
    assert fetch(REPOSITORY, branch, TRAIN).commit == commit != _head(hub)


def test_models_are_served_too(hub: LoopbackHub) -> None:
    commit = hub.add("model", "owner/small", {"config.json": b"{}", "model.safetensors": LARGE})
    snapshot = fetch("owner/small", "main", ["config.json", "*.safetensors"], "model")
    assert snapshot.commit == commit and len(snapshot.files) == 2
    folders = {path.parent for path in snapshot.files.values()}
    assert [folder.name for folder in folders] == [commit]


def test_an_altered_file_in_the_cache_is_refused(hub: LoopbackHub) -> None:
    path = fetch(REPOSITORY, "main", TRAIN).files["data/train-1.jsonl"]
    path.resolve().write_bytes(SMALL.replace(b"1", b"2"))
    with pytest.raises(DataError, match=r"train-1.jsonl of owner/name has SHA-256") as caught:
        fetch(REPOSITORY, "main", TRAIN)
    assert str(path) in caught.value.mend
    path.resolve().unlink()
    path.unlink()
    assert fetch(REPOSITORY, "main", TRAIN).files["data/train-1.jsonl"].read_bytes() == SMALL


def test_a_download_of_other_bytes_is_found_at_once(hub: LoopbackHub) -> None:
    hub.fault(Fault("train-0", method="GET", body="altered"))
    with pytest.raises(DataError, match="broken or altered download"):
        fetch(REPOSITORY, "main", TRAIN)
    assert recorded_commit(REPOSITORY, "main") is None


def test_a_download_that_breaks_off_is_resumed(hub: LoopbackHub) -> None:
    hub.fault(Fault("train-0", method="GET", body="cut off", times=1))
    assert fetch(REPOSITORY, "main", TRAIN).files["data/train-0.jsonl"].read_bytes() == LARGE


def test_a_download_that_keeps_breaking_off(hub: LoopbackHub) -> None:
    hub.fault(Fault("train-0", method="GET", body="cut off"))
    with pytest.raises(DataError, match=r"file data/train-0.jsonl: the download failed") as caught:
        fetch(REPOSITORY, "main", TRAIN)
    assert "connection" in caught.value.mend
    hub.faults.clear()
    assert fetch(REPOSITORY, "main", TRAIN).files["data/train-0.jsonl"].read_bytes() == LARGE


def test_no_such_repository_revision_or_file(hub: LoopbackHub) -> None:
    with pytest.raises(DataError, match="owner/other is not on the hub, or it is private") as caught:
        fetch("owner/other", "main", TRAIN)
    assert "hf auth login" in caught.value.mend
    with pytest.raises(DataError, match="no revision 'v9'") as caught:
        fetch(REPOSITORY, "v9", TRAIN)
    assert "commit" in caught.value.mend
    with pytest.raises(DataError, match=r"has no file data/\*\.parquet") as caught:
        fetch(REPOSITORY, "main", ["data/*.parquet"])
    assert "it has files in: ., data" in caught.value.mend
    hub.add("model", "owner/old", {"config.json": b"{}", "pytorch_model.bin": LARGE})
    with pytest.raises(DataError, match=r"has no file model\*\.safetensors") as caught:
        fetch("owner/old", "main", ["model*.safetensors"], "model")
    assert "pickled" in caught.value.mend and "refs/pr/1" in caught.value.mend
    with pytest.raises(DataError, match="no name of a repository"):
        fetch("a/b/c", "main", TRAIN)


def test_gated(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gate("dataset", REPOSITORY)
    with pytest.raises(DataError, match="is gated") as caught:
        fetch(REPOSITORY, "main", TRAIN)
    assert f"{hub.endpoint}/datasets/{REPOSITORY}" in caught.value.mend and "hf auth login" in caught.value.mend
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(fetch(REPOSITORY, "main", TRAIN).files) == 2


@pytest.mark.parametrize("where", ["/api/datasets", "train-0"])
def test_too_many_requests(where: str, hub: LoopbackHub) -> None:
    hub.fault(Fault(where, 429, headers={"Retry-After": "77"}))
    with pytest.raises(DataError, match="429, too many requests") as caught:
        fetch(REPOSITORY, "main", TRAIN)
    assert "wait 77 seconds" in caught.value.mend


def test_a_short_limit_is_waited_out(hub: LoopbackHub) -> None:
    hub.fault(Fault("train-0", 429, headers={"Retry-After": "1"}, times=2))
    assert len(fetch(REPOSITORY, "main", TRAIN).files) == 2


@pytest.mark.parametrize(("status", "message"), [(503, "answers 503"), (403, "access denied")])
def test_other_answers(status: int, message: str, hub: LoopbackHub) -> None:
    hub.fault(Fault("/api/datasets", status))
    with pytest.raises(DataError, match=message):
        fetch(REPOSITORY, "main", TRAIN)


def test_offline_before_the_first_fetch(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    _offline(monkeypatch)
    for revision in ("main", _head(hub)):
        with pytest.raises(DataError, match="HF_HUB_OFFLINE=1") as caught:
            fetch(REPOSITORY, revision, TRAIN)
        assert "without HF_HUB_OFFLINE" in caught.value.mend and "path:" in caught.value.mend
    assert hub.requests == []


def test_offline_with_a_file_missing_in_the_cache(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(REPOSITORY, "main", TRAIN).files["data/train-0.jsonl"].unlink()
    _offline(monkeypatch)
    with pytest.raises(DataError, match=r"file data/train-0.jsonl at revision 'main' is not in the cache"):
        fetch(REPOSITORY, "main", TRAIN)


def test_no_server(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the download failed") as caught:
        fetch(REPOSITORY, "main", TRAIN)
    assert "connection" in caught.value.mend


def test_a_damaged_record(hub: LoopbackHub) -> None:
    fetch(REPOSITORY, "main", TRAIN)
    (record,) = source.cache_root().glob("hub/*/main.json")
    assert set(json.loads(record.read_text())) == {"kind", "repository", "revision", "commit", "resolved", "files", "names"}
    record.write_text("{")
    with pytest.raises(DataError, match="is damaged") as caught:
        fetch(REPOSITORY, "main", TRAIN)
    assert f"rm {record}" in caught.value.mend


def test_programming_errors_are_not_dressed_up(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(TypeError):
        fetch(REPOSITORY, "main", TRAIN)
