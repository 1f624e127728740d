from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from finetrial.errors import StoreError
from finetrial.fingerprint import file_digest
from finetrial.records.record import Outcome
from finetrial.run.disk import is_full, store_error
from finetrial.run.store import Store

KEY = "ab" * 16


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def write(store, environment, make_record):
    def write(text="content", key=KEY, **more):
        with store.claim("toy", key, environment) as claim:
            (claim.folder / "sub").mkdir()
            (claim.folder / "sub" / "file").write_text(text)
            return claim.write(make_record(key, **more))
    return write


def test_an_entry_lies_where_its_key_says(store, environment, write):
    entry = write()
    assert entry.folder == store.root / "toy" / "ab" / f"{KEY}-{environment.key()}"
    assert set(entry.record.files) == {"sub/file"} and len(entry.record.files["sub/file"]) == 64
    assert Store(store.root).lookup("toy", KEY, environment) == entry
    assert not list((store.root / "tmp").iterdir()) and not list((store.root / "locks").iterdir())
    assert not list((store.root / "checkpoints").iterdir())


def test_lookups_of_what_is_not_there(store, environment, write):
    write()
    assert store.lookup("toy", "cd" * 16, environment) is None
    assert store.lookup("other", KEY, environment) is None
    assert Store(store.root / "nowhere").lookup("toy", KEY, environment) is None


def test_another_environment_is_never_used(store, environment, write):
    write()
    elsewhere = environment.model_copy(update={"torch": "9"})
    assert store.lookup("toy", KEY, elsewhere) is None


@pytest.mark.parametrize(("file", "content", "reason"), [
    ("sub/file", "conten", "does not match its digest"), ("sub/file", None, "is missing"),
    ("record.json", "{", "cannot be read"), ("record.json", None, "it has no record.json"),
    ("sub/file", "CONTENT", "does not match its digest")])
def test_damage_is_found_by_digest_and_moved_aside(store, environment, write, file, content, reason):
    folder = write().folder
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    fresh = Store(store.root)
    assert fresh.lookup("toy", KEY, environment) is None
    assert len(fresh.corrupt) == 1 and reason in fresh.corrupt[0]
    assert not folder.exists() and len(list((store.root / "corrupt").iterdir())) == 1
    assert write().folder == folder and fresh.lookup("toy", KEY, environment) is not None


def test_a_record_under_the_wrong_key_is_damage(store, environment, write):
    folder = write().folder
    other = store.root / "toy" / "cd" / folder.name.replace(KEY, "cd" * 16)
    other.parent.mkdir()
    folder.rename(other)
    assert store.lookup("toy", "cd" * 16, environment) is None and "another key" in store.corrupt[0]


def test_files_are_digested_once_and_again_when_they_change(store, environment, write, monkeypatch):
    folder = write().folder
    fresh, digested = Store(store.root), []
    monkeypatch.setattr("finetrial.run.store.file_digest", lambda path: digested.append(path) or file_digest(path))
    for _ in range(3):
        assert fresh.lookup("toy", KEY, environment) is not None
    assert len(digested) == 1
    os.utime(folder / "sub" / "file", ns=(1, 1))
    assert fresh.lookup("toy", KEY, environment) is not None and len(digested) == 2
    Store(store.root).lookup("toy", KEY, environment, verify=False)
    assert len(digested) == 2


def test_only_ok_keeps_files_and_a_later_attempt_replaces_an_earlier(store, environment, write):
    failed = write(outcome=Outcome.FAILED, message="it broke")
    assert failed.record.files == {} and [p.name for p in failed.folder.iterdir()] == ["record.json"]
    assert store.lookup("toy", KEY, environment) == failed
    entry = write()
    assert store.lookup("toy", KEY, environment) == entry and entry.record.outcome is Outcome.OK
    assert not list((store.root / "tmp").iterdir())


def test_a_claim_is_exclusive_until_released(store, environment):
    claim = store.claim("toy", KEY, environment)
    assert store.is_claimed(KEY, environment) and store.claim("toy", KEY, environment) is None
    claim.release()
    assert not store.is_claimed(KEY, environment)
    with store.claim("toy", KEY, environment) as again:
        assert list(again.folder.iterdir()) == []


def test_a_checkpoint_survives_until_a_record_is_written(store, environment, make_record):
    with store.claim("toy", KEY, environment) as claim:
        (claim.checkpoint / "state").write_text("1")
    with store.claim("toy", KEY, environment) as claim:
        claim.write(make_record(outcome=Outcome.TIMEOUT))
        assert (claim.checkpoint / "state").read_text() == "1"
    with store.claim("toy", KEY, environment) as claim:
        claim.write(make_record())
    assert not list((store.root / "checkpoints").iterdir())


@pytest.mark.parametrize(("outcome", "again", "kept"), [
    (Outcome.OK, True, False), (Outcome.DIVERGED, True, False), (Outcome.FAILED, False, False), (Outcome.FAILED, True, True),
    (Outcome.OOM, True, True), (Outcome.TIMEOUT, False, True)])
def test_a_checkpoint_of_a_later_try_outlives_the_record_of_an_earlier_one(store, environment, make_record, outcome, again, kept):
    with store.claim("toy", KEY, environment) as claim:
        checkpoint = claim.checkpoint
        claim.write(make_record(outcome=outcome))
    record = next(store.root.glob("toy/*/*/record.json"))
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "state").write_text("1")
    written = record.stat().st_mtime
    os.utime(checkpoint / "state", (written + (60 if again else -60),) * 2)
    Store(store.root).prepare()
    assert (checkpoint / "state").is_file() is kept


def test_an_entry_that_another_process_moves_aside_is_absent(store, environment, make_record, monkeypatch):
    """A file is gone while the others are looked at."""
    with store.claim("toy", KEY, environment) as claim:
        (claim.folder / "a").write_text("1")
        claim.write(make_record())
    again = Store(store.root)
    monkeypatch.setattr("finetrial.run.store.file_digest", lambda path: path.with_name("moved").read_bytes())
    assert again.lookup("toy", KEY, environment) is None and "is gone" in again.corrupt[0]


def test_what_the_dead_leave_is_swept_and_what_the_living_hold_is_not(store, environment):
    code = ("import os, signal, sys; from pathlib import Path\n"
            "from finetrial.records.record import Environment; from finetrial.run.store import Store\n"
            f"claim = Store(Path({str(store.root)!r})).claim('toy', 'cd' * 16, "
            f"Environment.model_validate_json({environment.model_dump_json()!r}))\n"
            "(claim.folder / 'half').write_text('a file')\n"
            "os.kill(os.getpid(), signal.SIGKILL)")
    subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    living = store.claim("toy", KEY, environment)
    assert len(list((store.root / "tmp").iterdir())) == 2
    Store(store.root).prepare()
    assert list((store.root / "tmp").iterdir()) == [living.folder]
    living.release()


def test_a_store_that_is_a_file(tmp_path, environment):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be a folder"):
        Store(tmp_path / "store").prepare()
    with pytest.raises(StoreError, match="cannot be a folder"):
        Store(tmp_path / "store" / "below").prepare()


def test_a_store_without_permission(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(StoreError, match="no permission to write to .*store"):
            Store(folder / "store").prepare()
    finally:
        if root:
            os.seteuid(0)


def test_a_full_disk_while_writing_loses_nothing(store, environment, write, monkeypatch):
    before = write()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("finetrial.run.claim._write_synced", full)
        with pytest.raises(StoreError, match="is full"):
            write(key="cd" * 16)
    assert Store(store.root).lookup("toy", KEY, environment) == before
    assert store.lookup("toy", "cd" * 16, environment) is None and not list((store.root / "tmp").iterdir())
    assert write(key="cd" * 16).record.outcome is Outcome.OK


def test_full_disks_are_recognised_whoever_reports_them():
    deep = RuntimeError("could not save")
    deep.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full(deep) and is_full(OSError(errno.EDQUOT, "quota")) and not is_full(OSError(errno.EACCES, "no"))
    assert is_full(ValueError("I/O error: No space left on device (os error 28)"))
    assert "cannot be used" in str(store_error(OSError(errno.EIO, "broken"), "x"))


def test_a_trusting_store_reads_large_files_only_if_they_changed_after_their_record(store, environment, write,
                                                                                   monkeypatch):
    monkeypatch.setattr("finetrial.run.store.LARGE_BYTES", 5)
    entry = write()
    path, trusting = entry.folder / "sub" / "file", Store(store.root, trusting=True)
    digested = []
    monkeypatch.setattr("finetrial.run.store.file_digest", lambda name: digested.append(name) or file_digest(name))
    assert trusting.lookup("toy", KEY, environment) == entry and digested == []
    assert Store(store.root).lookup("toy", KEY, environment) == entry and digested == [path]
    path.write_text("damaged")
    changed = (entry.folder / "record.json").stat().st_mtime_ns + 1
    os.utime(path, ns=(changed, changed))
    assert trusting.lookup("toy", KEY, environment) is None and len(trusting.corrupt) == 1
