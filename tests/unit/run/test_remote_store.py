"""A store at a URL: entries are visible only when complete, whatever is interrupted; files come when they are needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from finetrial.errors import StoreError, UserError
from finetrial.records.record import Outcome
from finetrial.run import lease, node_cache, remote_checkpoint
from finetrial.run.garbage import choices
from finetrial.run.lease import Lease
from finetrial.run.node_cache import FOLDER, SIZE, NodeCache
from finetrial.run.options import RunOptions
from finetrial.run.place import open_place
from finetrial.run.remote import Remote, is_url, located, object_name
from finetrial.run.remote_garbage import remove_remote, unused_remote
from finetrial.run.remote_store import RemoteStore, open_store
from finetrial.run.store import Store
from finetrial.run.walk import State
from finetrial.stages.base import Chosen

KEY = "ab" * 16


class Objects(MemoryFileSystem):
    """What an object store can do, and no more: whole objects. `cut`: uploads end in the middle of this one."""

    protocol = "objects"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    downloads: ClassVar[list] = []
    cut = None
    broken: ClassVar[dict] = {}  # errors that reading an object raises, by a part of its name

    def cat_file(self, path, *args, **more):
        for part, error in Objects.broken.items():
            if part in path:
                raise error
        return super().cat_file(path, *args, **more)

    def put_file(self, lpath, rpath, **more):
        if Objects.cut is not None and Objects.cut in lpath:
            with open(lpath, "rb") as file:
                self.pipe_file(rpath, file.read()[:-1])
            raise ConnectionError("the network is gone")
        super().put_file(lpath, rpath, **more)

    def get_file(self, rpath, lpath, **more):
        super().get_file(rpath, lpath, **more)
        Objects.downloads.append(rpath)

    def _refuse(self, *_, **__):
        raise AssertionError("an object store renames and copies nothing, and has no folders")

    mv = move = rename = mv_file = copy = cp_file = _refuse


fsspec.register_implementation("objects", Objects, clobber=True)


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "machine"))
    Objects.cut = None
    Objects.broken.clear()
    Objects.downloads.clear()
    yield "objects://bucket/prefix"
    Objects.store.clear()


@pytest.fixture
def elsewhere(url, tmp_path, monkeypatch):
    """Opens the store as a machine of its own; its number says which."""
    def on(number=1, **more):
        monkeypatch.setenv(FOLDER, str(tmp_path / f"machine-{number}"))
        return RemoteStore(url, **more)
    return on


def write(store, make_record, files=(("out", "text"), ("sub/large", "x" * 1000)), **more):
    store.prepare()
    record = make_record(**more)
    with store.claim("toy", record.key, record.environment) as claim:
        for name, text in files:
            (claim.folder / name).parent.mkdir(exist_ok=True)
            (claim.folder / name).write_text(text)
        return claim.write(record)


def test_an_entry_is_found_elsewhere_and_its_files_come_when_they_are_read(url, elsewhere, make_record, environment):
    written = write(RemoteStore(url), make_record)
    for trusting in (True, False):
        there = elsewhere(trusting, trusting=trusting)
        found = there.lookup("toy", KEY, environment)
        assert found.record == written.record and Objects.downloads == []
        assert (found.folder / "out").read_text() == "text" and len((found.folder / "sub" / "large").read_text()) == 1000
        assert len(Objects.downloads) == 2
        again = elsewhere(trusting).lookup("toy", KEY, environment)
        assert again.folder == found.folder and len(Objects.downloads) == 2
        Objects.downloads.clear()
    assert RemoteStore(url).lookup("toy", "cd" * 16, environment) is None
    assert RemoteStore(url).lookup("toy", KEY, environment.model_copy(update={"torch": "1"})) is None


@pytest.mark.parametrize("cut", ["out", "large"])
def test_an_upload_that_is_interrupted_leaves_nothing_to_be_seen(url, elsewhere, make_record, environment, cut):
    Objects.cut = cut
    with pytest.raises(StoreError, match="the network is gone"):
        write(RemoteStore(url), make_record)
    assert not [name for name in Objects.store if "/records/" in name] and any("/objects/" in name for name in Objects.store)
    assert elsewhere().lookup("toy", KEY, environment) is None
    Objects.cut = None
    write(elsewhere(2), make_record)  # what was cut off is written again
    found = elsewhere(3).lookup("toy", KEY, environment)
    assert (found.folder / "out").read_text() == "text" and len((found.folder / "sub" / "large").read_text()) == 1000


def test_a_file_that_two_entries_hold_is_stored_once(url, make_record):
    for key in (KEY, "cd" * 16):
        write(RemoteStore(url), make_record, key=key)
    assert len([name for name in Objects.store if "/objects/" in name]) == 2
    assert len([name for name in Objects.store if "/records/" in name]) == 2


def test_a_damaged_file_is_not_used_and_its_entry_computed_again(url, elsewhere, make_record, environment):
    entry = write(RemoteStore(url), make_record)
    [path] = [name for name in Objects.store if name.endswith(entry.record.files["out"])]
    fsspec.filesystem("objects").pipe_file(path, b"TEXT")
    found = elsewhere().lookup("toy", KEY, environment)
    with pytest.raises(StoreError, match="out does not match its digest in the store objects://bucket/prefix"):
        _ = found.folder
    driver = elsewhere(trusting=True)
    assert driver.lookup("toy", KEY, environment) is None and not [name for name in Objects.store if "/records/" in name]
    write(driver, make_record)
    assert (elsewhere(2).lookup("toy", KEY, environment).folder / "out").read_text() == "text"


def test_a_record_that_cannot_be_read_counts_as_absent(url, make_record, environment):
    write(RemoteStore(url), make_record)
    [path] = [name for name in Objects.store if "/records/" in name]
    fsspec.filesystem("objects").pipe_file(path, Objects.store[path].getvalue()[:50])
    store = RemoteStore(url)
    assert store.lookup("toy", KEY, environment) is None and "it cannot be read" in store.corrupt[0]
    for files, why in (({"../x": "0"}, "files outside"), ({"/x": "0"}, "files outside")):
        fsspec.filesystem("objects").pipe_file(path, make_record(files=files).model_dump_json().encode())
        assert store.lookup("toy", KEY, environment) is None and why in store.corrupt[-1]


def test_two_processes_bring_an_entry_once(url, elsewhere, make_record, environment):
    write(RemoteStore(url), make_record)
    stores = [elsewhere(1), elsewhere(1)]
    threads = [threading.Thread(target=lambda store=store: store.lookup("toy", KEY, environment).folder) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Objects.downloads) == 2  # the files of the entry


def test_what_is_recorded_after_we_looked_is_found_when_asked_again(url, elsewhere, make_record, environment):
    driver = elsewhere(trusting=True)
    assert driver.lookup("toy", KEY, environment) is None
    write(elsewhere(2), make_record)
    assert driver.lookup("toy", KEY, environment) is not None


def test_the_lease_of_a_url(url, elsewhere, monkeypatch, until_it_raises):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    store = RemoteStore(url)
    with Lease(store.lease) as mine:
        with pytest.raises(StoreError, match=f"objects://bucket/prefix is in use by process {os.getpid()}"):
            Lease(elsewhere().lease)
        mine.check()
        assert lease.holds(elsewhere().lease, mine.token)
        with pytest.raises(FileExistsError):
            store.remote.create(lease.LEASE_FILE, b"another")
        store.remote.write(lease.LEASE_FILE, b'{"token": "taken over", "host": "elsewhere", "pid": 1}')
        with pytest.raises(StoreError, match="was taken over"):
            until_it_raises(mine.check)
    with pytest.raises(StoreError, match="by process 1 on elsewhere"):
        Lease(store.lease)
    monkeypatch.setattr(lease, "STALE_SECONDS", -1.0)  # by the clock of the store
    with Lease(store.lease) as mine:
        assert lease.holds(store.lease, mine.token)
    assert store.remote.read(lease.LEASE_FILE) is None and len(Objects.store) == 0  # no probe is left


def test_a_run_on_this_machine_stops_when_its_lease_is_lost(laboratory, url, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    shared = f"file://{tmp_path / 'bucket'}"
    with open_place(RunOptions(runs=tmp_path, store=shared, device="cpu")) as place:
        [thread] = [thread for thread in threading.enumerate() if thread.name == "lease"]
        place.store.remote.write(lease.LEASE_FILE, b'{"token": "taken over", "host": "elsewhere", "pid": 1}')
        thread.join(10)
        with pytest.raises(StoreError, match="was taken over by another run"):
            laboratory.execute(laboratory.stage("a", do="hang"), store=place.store, executor=place.executor)
    with open_place(RunOptions(runs=tmp_path, store=tmp_path / "folder", device="cpu")) as place:
        assert laboratory.execute(laboratory.stage("a"), store=place.store, executor=place.executor).complete


def test_copies_are_bounded_and_what_a_living_process_uses_stays(url, elsewhere, make_record, environment):
    keys = [f"{number:02d}" * 16 for number in range(4)]
    for key in keys:
        write(elsewhere(0), make_record, files=[("out", key * 10)], key=key)
    store = elsewhere(1)
    folders = [store.lookup("toy", key, environment).folder for key in keys]
    for age, folder in enumerate(folders):
        os.utime(folder, (1000 + age, 1000 + age))
    other = NodeCache(store.root)
    other.shrink(0)
    assert all(folder.is_dir() for folder in folders)  # we use them
    shutil.rmtree(store.root / "pins")
    program = ("import sys; from pathlib import Path; from finetrial.run.node_cache import NodeCache\n"
               "cache = NodeCache(Path(sys.argv[1])); cache.use(Path(sys.argv[2])); print('used', flush=True); sys.stdin.read()")
    child = subprocess.Popen([sys.executable, "-c", program, str(store.root), folders[0].name], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert child.stdout.readline() == b"used\n"
    each = sum(path.stat().st_size for path in folders[0].iterdir())
    NodeCache(store.root).shrink(2 * each + 100)
    assert [folder.is_dir() for folder in folders] == [True, False, False, True]  # used; oldest first
    child.kill()
    child.communicate()
    NodeCache(store.root).shrink(0)
    assert not any(folder.is_dir() for folder in folders)
    assert store.lookup("toy", keys[1], environment).folder.is_dir()  # it is brought again


def test_two_processes_may_bound_the_copies_at_once(url, elsewhere, make_record, environment, monkeypatch):
    """What one of them lists, the other may have moved by the time it is looked at, or is renamed."""
    store = elsewhere(1)
    for number in range(6):
        write(store, make_record, files=[("out", str(number))], key=f"{number:02d}" * 16)
    shutil.rmtree(store.root / "pins")
    folders = sorted(path.parent for path in store.root.glob("toy/??/*/record.json"))
    first, real = folders[0], node_cache.size_of

    def size(folder):
        shutil.rmtree(folders.pop(), ignore_errors=True)  # one that is listed, or about to be
        return real(folder)

    monkeypatch.setattr(node_cache, "size_of", size)
    NodeCache(store.root).shrink(0)
    assert not first.exists() and not list(store.root.glob("toy/??/*/record.json"))
    monkeypatch.setattr(node_cache, "size_of", real)
    for number in range(6):
        write(store, make_record, files=[("out", str(number))], key=f"{number:02d}" * 16)
    shutil.rmtree(store.root / "pins")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda cache: cache.shrink(0), [NodeCache(store.root), NodeCache(store.root)]))
    assert not list(store.root.glob("toy/??/*/record.json"))


@pytest.mark.parametrize("stated", ["50GB", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused_before_anything_runs(url, stated, monkeypatch):
    monkeypatch.setenv(SIZE, stated)
    with pytest.raises(UserError, match=f"{SIZE}={stated}; expected a number of gigabytes") as refused:
        RemoteStore(url)
    assert "=50" in refused.value.mend


def test_a_record_that_is_written_stays_whatever_the_copies_do(url, make_record, environment, monkeypatch):
    store = RemoteStore(url)
    monkeypatch.setattr(NodeCache, "_moved", lambda *_: (_ for _ in ()).throw(PermissionError("the disk is odd")))
    assert write(store, make_record).record.outcome is Outcome.OK
    assert store.lookup("toy", KEY, environment).record.outcome is Outcome.OK


def test_a_checkpoint_is_there_for_another_machine_until_the_record_is(url, elsewhere, make_record, environment, monkeypatch):
    monkeypatch.setattr(remote_checkpoint, "EVERY_SECONDS", 0.01)
    first = elsewhere(1)
    first.prepare()
    claim = first.claim("toy", KEY, environment)
    (claim.checkpoint / "state").write_text("half way")
    wait_until(lambda: any("/checkpoints/" in name and name.endswith(".json") for name in Objects.store))
    claim.on_release()  # the machine is gone: nothing is released
    second = elsewhere(2)
    second.prepare()
    with second.claim("toy", KEY, environment) as again:
        assert (again.checkpoint / "state").read_text() == "half way"
        (again.checkpoint / "state").write_text("further")
        wait_until(lambda: b"further" in [content.getvalue() for content in list(Objects.store.values())])
        again.write(make_record(outcome=Outcome.TIMEOUT))
        assert any("/checkpoints/" in name for name in Objects.store)
    third = elsewhere(3)
    third.prepare()
    with third.claim("toy", KEY, environment) as last:
        assert (last.checkpoint / "state").read_text() == "further"
        last.write(make_record())
    assert not any("/checkpoints/" in name for name in Objects.store)  # nor files of the machines before


def wait_until(true):
    import time

    deadline, pause = time.monotonic() + 20, threading.Event()
    while not true():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def test_a_run_goes_on_elsewhere_from_what_is_there(laboratory, url, tmp_path, monkeypatch):
    """With workers, on a file system of fsspec that every process can open."""
    shared = f"file://{tmp_path / 'bucket'}"
    stages = [laboratory.stage("a"), laboratory.stage("b", {"from": "a"}),
              laboratory.stage("choose", {"from": "b"}, kind="toy", do="choose", chosen="x"),
              laboratory.stage("c", {"from": Chosen("choose", {"x": "b", "y": "a"})})]
    laboratory.kill_file.write_text("mid-stage")
    first = laboratory.execute(*stages, store=RemoteStore(shared, trusting=True))
    assert first.complete and {state.state for state in first.states.values()} == {State.DONE}
    texts = {name: (first.found(name).folder / "out").read_text() for name in "abc"}
    monkeypatch.setenv(FOLDER, str(tmp_path / "another machine"))
    started = laboratory.started()
    again = laboratory.execute(*stages, laboratory.stage("d", {"from": "b"}), store=RemoteStore(shared, trusting=True))
    assert [again.states[name].state for name in ("a", "b", "c", "d")] == [State.CACHED] * 3 + [State.DONE]
    assert laboratory.started()[len(started):] == ["d"]
    [copies] = (tmp_path / "another machine").iterdir()
    held = {json.loads(path.read_text())["stage_id"] for path in copies.glob("toy/??/*/record.json")}
    assert held == {"b", "d"}  # brought because it was read; written
    assert {name: (again.found(name).folder / "out").read_text() for name in "abc"} == texts


def test_a_file_that_is_missing_is_computed_again_by_the_next_run(laboratory, url, tmp_path, monkeypatch):
    """The driver sees it in the listing, the worker sees only the record: both must take the entry for absent."""
    bucket = tmp_path / "bucket"
    stages = [laboratory.stage("a"), laboratory.stage("b", {"from": "a"})]
    first = laboratory.execute(*stages, store=RemoteStore(f"file://{bucket}", trusting=True))
    digest = first.found("a").record.files["out"]
    text = (bucket / object_name(digest)).read_text()
    (bucket / object_name(digest)).unlink()
    monkeypatch.setenv(FOLDER, str(tmp_path / "another machine"))
    started = laboratory.started()
    again = laboratory.execute(*stages, laboratory.stage("c", {"from": "a"}), store=RemoteStore(f"file://{bucket}", trusting=True))
    assert [again.states[name].state for name in "abc"] == [State.DONE, State.CACHED, State.DONE]
    assert laboratory.started()[len(started):] == ["a", "c"] and "out is missing" in again.corrupt[0]
    assert (bucket / object_name(digest)).read_text() == text


@pytest.mark.parametrize("stack", [1, 2])
def test_an_input_that_cannot_be_brought_stops_the_run_and_is_nobodys_outcome(laboratory, url, tmp_path, monkeypatch, stack):
    bucket = tmp_path / "bucket"
    store = f"file://{bucket}"
    a = laboratory.stage("a")
    readers = [laboratory.stage(name, {"from": "a"}, alike="yes") for name in "bc"]
    digest = laboratory.execute(a, store=RemoteStore(store, trusting=True)).found("a").record.files["out"]
    text = (bucket / object_name(digest)).read_text()
    (bucket / object_name(digest)).write_text(text[::-1])  # of the same size: no listing tells
    monkeypatch.setenv(FOLDER, str(tmp_path / "another machine"))
    with pytest.raises(StoreError, match="out does not match its digest in the store file://") as stopped:
        laboratory.execute(a, *readers, store=RemoteStore(store, trusting=True), stack=stack, jobs=1)
    assert stopped.value.mend == "the next run computes it again"
    assert not list(bucket.glob("records/*/*/*.json"))
    again = laboratory.execute(a, *readers, store=RemoteStore(store, trusting=True), stack=stack, jobs=1)
    assert {state.state for state in again.states.values()} == {State.DONE} and again.complete
    assert (bucket / object_name(digest)).read_text() == text


def test_a_record_that_was_replaced_meanwhile_is_not_taken_for_the_damaged_one(url, elsewhere, make_record, environment):
    write(RemoteStore(url), make_record, files=[("out", "first")])
    driver = elsewhere(trusting=True)
    assert driver.lookup("toy", "cd" * 16, environment) is None  # it lists the store
    entry = elsewhere(1).lookup("toy", KEY, environment)
    Remote(url).remove(object_name(entry.record.files["out"]))
    write(elsewhere(2), make_record, files=[("out", "second")])
    with pytest.raises(StoreError, match="out is missing in the store"):
        _ = entry.folder
    found = driver.lookup("toy", KEY, environment)  # its listing does not have the new file
    assert (found.folder / "out").read_text() == "second"


def test_what_no_run_needs_is_freed_but_not_while_a_driver_computes(url, tmp_path, make_record, monkeypatch):
    store = RemoteStore(url)
    for key, text in ((KEY, "kept"), ("cd" * 16, "not needed")):
        write(store, make_record, files=[("out", text), ("common", "in both")], key=key)
    store.remote.write("objects/00/" + "0" * 64, b"left by an upload")
    store.remote.write(f"checkpoints/{'cd' * 16}-0.json", b"{}")
    monkeypatch.setattr("finetrial.run.remote_garbage.needed_keys", lambda runs, location, chosen: ({KEY}, ["run"]))
    waste, named = unused_remote(store.remote, tmp_path)
    assert named == ["run"] and sorted(entry.kind for entry in waste) == ["checkpoints", "files", "files", "toy"]
    assert waste[0].kind == "toy"  # no record is ever without its files
    with Lease(store.lease), pytest.raises(StoreError, match="in use"):
        remove_remote(waste, store.remote, tmp_path)
    before = sum(len(content.getvalue()) for content in Objects.store.values())
    freed = remove_remote(waste, store.remote, tmp_path)
    assert freed == before - sum(len(content.getvalue()) for content in Objects.store.values()) > 0
    assert unused_remote(store.remote, tmp_path)[0] == []


def test_a_selection_of_another_class_of_machine_is_needed_too(make_record, environment):
    elsewhere = environment.model_copy(update={"torch": "1.0"})
    found = choices([make_record(values={"chosen": "1e-3"}), make_record(values={"chosen": "1e-2"}, environment=elsewhere),
                     make_record(key="cd" * 16, values={})])
    assert found == {environment.key(): {KEY: "1e-3"}, elsewhere.key(): {KEY: "1e-2"}}


def test_while_gc_removes_no_driver_begins_and_what_became_needed_stays(url, tmp_path, make_record, monkeypatch):
    store, needed = RemoteStore(url), {KEY}
    for key in (KEY, "cd" * 16, "ef" * 16):
        write(store, make_record, files=[("out", key)], key=key)
    monkeypatch.setattr("finetrial.run.remote_garbage.needed_keys", lambda runs, location, chosen: (needed, ["run"]))
    waste, _ = unused_remote(store.remote, tmp_path)
    needed.add("cd" * 16)  # a run that began and ended since then
    refused, real = [], store.remote.remove

    def remove(name):
        if not name.startswith(lease.LEASE_FILE):
            with pytest.raises(StoreError, match="in use"):
                Lease(RemoteStore(url).lease)
            refused.append(name)
        real(name)

    monkeypatch.setattr(store.remote, "remove", remove)
    remove_remote(waste, store.remote, tmp_path)
    assert len(refused) == 2 and len(waste) == 4  # a record and its file each
    assert len([name for name in Objects.store if "/records/" in name]) == 2
    assert store.remote.read(lease.LEASE_FILE) is None


def test_checkpoints_of_what_is_recorded_are_waste(url, tmp_path, make_record, monkeypatch):
    store, other = RemoteStore(url), "cd" * 16
    for key, outcome in ((KEY, Outcome.OK), (other, Outcome.TIMEOUT)):
        entry = write(store, make_record, key=key, outcome=outcome)
        name = f"{key}-{entry.record.environment.key()}"
        store.remote.write(f"checkpoints/{name}.json", b"{}")
        store.remote.write(f"checkpoints/{name}/0", b"a file that no manifest names any more")
    store.remote.write(f"checkpoints/{KEY}-elsewhere.json", b"{}")  # of another environment, where it is not recorded
    monkeypatch.setattr("finetrial.run.remote_garbage.needed_keys", lambda runs, location, chosen: ({KEY, other}, ["run"]))
    waste, _ = unused_remote(store.remote, tmp_path)
    name = f"{KEY}-{make_record().environment.key()}"
    assert sorted(entry.name for entry in waste) == [f"checkpoints/{name}.json", f"checkpoints/{name}/0"]


def test_nothing_is_waste_while_a_record_that_is_needed_cannot_be_read(url, tmp_path, make_record, monkeypatch):
    """One request that fails must not look like a record that names no files."""
    store = RemoteStore(url)
    write(store, make_record)
    write(store, make_record, key="cd" * 16)
    monkeypatch.setattr("finetrial.run.remote_garbage.needed_keys", lambda runs, location, chosen: ({KEY}, ["run"]))
    Objects.broken[KEY] = ConnectionError("a transient fault")
    with pytest.raises(StoreError, match="a transient fault"):
        unused_remote(store.remote, tmp_path)
    Objects.broken[KEY] = FileNotFoundError("it went between the listing and the reading")
    with pytest.raises(StoreError, match=f"{KEY}.* cannot be read, so the files that it names are unknown"):
        unused_remote(store.remote, tmp_path)
    Objects.broken.clear()
    assert [entry.kind for entry in unused_remote(store.remote, tmp_path)[0]] == ["toy"]


def test_what_is_a_url_and_what_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(SIZE, "0.000001")
    assert NodeCache(tmp_path)._most(0) == 1000
    assert is_url("s3://bucket/x") and not is_url("/tmp/x") and not is_url(tmp_path)
    assert located(None, tmp_path) == tmp_path / ".store" and located("x", tmp_path).name == "x"
    assert isinstance(open_store(tmp_path), Store) and open_store("memory://x/").location == "memory://x"
    with pytest.raises(StoreError, match="nowhere://x cannot"):
        Remote("nowhere://x").read("record")
    assert object_name("abc") == "objects/ab/abc"


@pytest.mark.parametrize("use", [
    lambda there: there.read("a"), lambda there: there.read_all(["a"]), lambda there: there.read_all([]),
    lambda there: there.write("a", b""), lambda there: there.has("a"), lambda there: there.remove("a"),
    lambda there: there.sizes("records"), lambda there: there.age("a"), lambda there: there.create("a", b"")])
def test_a_package_that_is_missing_is_said_whatever_is_done_first(use, monkeypatch):
    monkeypatch.setitem(known_implementations, "absent",
                        {"class": "no_such_package.FileSystem", "err": "Install no_such_package to access it"})
    with pytest.raises(StoreError, match=r"absent://bucket cannot be opened: Install no_such_package"):
        use(Remote("absent://bucket"))
