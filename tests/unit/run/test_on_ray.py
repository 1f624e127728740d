"""The executor of a cluster, with a Ray of our own: tasks run here, and are lost as we say."""

from __future__ import annotations

import collections
import itertools
import sys
import types

import pytest

from finetrial import __version__
from finetrial.errors import MissingPackage, UserError
from finetrial.records.record import Outcome
from finetrial.run import on_node, place
from finetrial.run.events import StageRetried
from finetrial.run.job import Job
from finetrial.run.lease import Lease
from finetrial.run.node_cache import FOLDER
from finetrial.run.on_ray import Cluster, Needs, RayPool
from finetrial.run.options import RunOptions
from finetrial.run.remote_store import RemoteStore
from finetrial.run.store import Store


class RayError(Exception):
    """As Ray's exceptions are related."""


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class TaskCancelledError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class NodeDiedError(RayError):
    pass


Affinity = collections.namedtuple("Affinity", ["node_id", "soft"])


class FakeRay(types.ModuleType):
    """Tasks are generators that are run where they are asked for their next message."""

    def __init__(self):
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, OutOfMemoryError=OutOfMemoryError,
                                                TaskCancelledError=TaskCancelledError)
        self.resources = [{"CPU": 2.0, "memory": 8e9}, {"CPU": 4.0, "GPU": 1.0, "memory": 8e9}]
        self.options, self.losses, self.connected = [], [], True

    def init(self, address, **_):
        if address == "nowhere:1":
            raise ConnectionError("Could not connect to\na cluster")

    def shutdown(self):
        self.connected = False

    def nodes(self):
        return [{"Alive": True, "NodeID": f"id-{place}", "NodeManagerHostname": f"host-{place}", "Resources": resources}
                for place, resources in enumerate(self.resources)] + [{"Alive": False}]

    def remote(self, **_):
        return lambda function: FakeFunction(self, function)

    def wait(self, tasks, **_):
        return tasks[:1], tasks[1:]

    def get(self, found):
        return found

    def cancel(self, task, *, force):
        assert force
        task.error = TaskCancelledError()


class FakeFunction:
    def __init__(self, ray, function):
        self.ray, self.function = ray, function

    def options(self, **options):
        self.ray.options.append(options)
        return self

    def remote(self, *arguments):
        found = self.function(*arguments)
        return FakeTask(found, self.ray.losses.pop(0) if self.ray.losses else None) if hasattr(found, "send") else found


class FakeTask:
    def __init__(self, messages, error):
        self.messages, self.error = messages, error

    def __next__(self):
        if self.error is not None:
            self.messages.close()
            raise self.error
        return next(self.messages)


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies",
                        types.SimpleNamespace(NodeAffinitySchedulingStrategy=Affinity))
    monkeypatch.setattr(on_node, "_servers", [])
    yield fake
    for server in on_node._servers:
        server.pool.close()
    on_node._require.cache_clear()


@pytest.fixture
def run(ray, laboratory, environment, monkeypatch):
    """Executes toy stages on the fake."""
    monkeypatch.setattr(on_node, "describe", lambda device: on_node.Node("here", __version__, environment))

    def run(*stages, store=None, **more):
        store = store or Store(laboratory.folder / "store", cluster=True)
        with Cluster(None, "cpu") as cluster, Lease(store.lease) as lease:
            return laboratory.execute(*stages, jobs=None, store=store,
                                      executor=lambda _: RayPool(cluster, lease), **more)
    return run


def test_a_cluster_gives_what_this_machine_gives(run, laboratory, ray):
    stages = [laboratory.stage("a"), laboratory.stage("b", {"x": "a"}, group="g"), laboratory.stage("c", {"x": "b"}, group="g"),
              laboratory.stage("timed", exclusive=True)]
    there = run(*stages)
    assert there.complete and [options["num_cpus"] for options in ray.options] == [1, 1, 4]  # the last has a node to itself
    here = laboratory.execute(*stages)
    assert [here.found(stage.id).record for stage in stages] == [there.found(stage.id).record for stage in stages]
    assert len(laboratory.started()) == len(stages) and "printed by b" in laboratory.log("b")
    assert not ray.connected


def test_a_phase_that_is_lost_with_its_node_is_tried_elsewhere(run, laboratory, ray):
    ray.losses = [NodeDiedError(), None, NodeDiedError(), NodeDiedError()]
    result = run(laboratory.stage("a"), laboratory.stage("b", {"x": "a"}))
    assert result.complete
    assert result.found("b").record.execution["attempts"] == ["lost on the cluster: NodeDiedError"] * 2
    assert [event.stage_id for event in laboratory.events if isinstance(event, StageRetried)] == ["a", "b", "b"]


def test_a_phase_that_takes_every_node_with_it_is_given_up(run, laboratory, ray):
    ray.losses = [NodeDiedError() for _ in range(6)]
    record = run(laboratory.stage("a")).found("a").record
    assert record.outcome is Outcome.FAILED and "lost with its machine 6 times" in record.message


def test_lack_of_memory_on_a_node_is_lack_of_memory(run, laboratory, ray):
    ray.losses = [OutOfMemoryError()]
    record = run(laboratory.stage("a")).found("a").record
    assert record.outcome is Outcome.OK and record.execution["attempts"] == ["killed (SIGKILL)"]


@pytest.mark.parametrize(("change", "words"), [
    ({"version": "0.0.1"}, "has finetrial .*, and the run was started with 0.0.1"),
    ({"token": "other"}, "does not see the store"),
    ({"logs": "/nowhere/logs"}, "does not see the run's folder /nowhere"),
    ({"torch": "9"}, "another environment class: torch '0' instead of '9'")])
def test_a_node_whose_results_would_differ_takes_no_part(ray, tmp_path, environment, monkeypatch, change, words):
    monkeypatch.setattr(on_node, "describe", lambda device: on_node.Node("here", __version__, environment))
    (tmp_path / "logs").mkdir()
    wanted = environment.model_copy(update={"torch": change.get("torch", environment.torch)})
    with Lease(tmp_path) as lease, pytest.raises(UserError, match=words):
        on_node._require(tmp_path, type(tmp_path)(change.get("logs", tmp_path / "logs")), "cpu", wanted.model_dump_json(),
                         change.get("token", lease.token), change.get("version", __version__))


def test_a_node_without_finetrial_is_named(run, laboratory, ray):
    ray.losses = [RayTaskError(ModuleNotFoundError("No module named 'finetrial'"))]
    with pytest.raises(UserError, match=r"cannot run phases: No module named 'finetrial'(.|\n)*install finetrial"):
        run(laboratory.stage("a"))


def test_what_a_phase_needs_decides_how_many_there_are(ray):
    assert Cluster(None, "cpu").room() == 6 and Cluster(None, "auto").device == "cuda"
    assert Cluster(None, "cuda").room() == 1
    assert Cluster(None, "cpu", 3 * 10**9).room() == 4
    assert Cluster(None, "cuda").whole_node() == {"num_cpus": 4, "num_gpus": 1, "scheduling_strategy": Affinity("id-1", True)}


def test_what_is_measured_alone_is_measured_on_one_node_as_long_as_it_lives(ray):
    cluster = Cluster(None, "cpu")

    def measured_on():
        options = cluster.whole_node()
        return options["num_cpus"], options["scheduling_strategy"].node_id

    ray.resources = [{"CPU": 2.0}, {"CPU": 4.0}, {"CPU": 4.0}]
    assert measured_on() == (4, "id-2")
    ray.resources.append({"CPU": 8.0})
    assert measured_on() == (4, "id-2")
    del ray.resources[1:]
    assert measured_on() == (2, "id-0")
    ray.resources = []
    assert cluster.whole_node() == Needs(1).options()


@pytest.mark.parametrize(("arguments", "words"), [
    ((None, "cpu", 9 * 10**9), "no node of the cluster has what a phase needs: 1 CPU, 9.0 GB of memory"),
    ((None, "mps"), "--device mps is not for a cluster"),
    (("ray://head:10001", "cpu"), "cannot follow phases"),
    (("nowhere:1", "cpu"), "there is no Ray cluster at nowhere:1: Could not connect to a cluster")])
def test_what_cannot_be_is_said(ray, arguments, words):
    with pytest.raises(UserError, match=words):
        Cluster(*arguments)


def test_without_ray_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'finetrial\[ray\]'"):
        Cluster(None, "cpu")


@pytest.mark.parametrize("options", [{"on": "moon"}, {"address": "host:1"}, {"memory_bytes": 1}])
def test_options_of_a_cluster_are_for_a_cluster(options):
    with pytest.raises(UserError, match="--on ray"), place.open_place(RunOptions(**options)):
        pass


def test_signs_of_life_come_once_a_second(monkeypatch):
    class Pool:
        jobs, said = {1}, [{"type": "started"}, *[{"type": "progress"}] * 4, {"type": "exit"}]

        def wait(self, timeout):
            message = self.said.pop(0)
            if message["type"] == "exit":
                self.jobs.clear()
            return [message]

    clock = itertools.count(0.0, 0.4)  # read twice for a sign that is passed on, once for another
    monkeypatch.setattr(on_node, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    said = [message["type"] for messages in on_node._said(Pool()) for message in messages]
    assert said == ["started", "progress", "progress", "exit"]


def test_where_nodes_see_no_folder_of_the_run_its_logs_are_told(run, laboratory, ray, tmp_path, monkeypatch):
    """With a store at a URL. The driver sees its folder; a node whose task runs elsewhere does not."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "machine"))
    seen = on_node.run_phase

    def elsewhere(line, token, version):
        job = Job.model_validate_json(line)
        for messages in seen(job.model_copy(update={"logs": tmp_path / "not here"}).model_dump_json(), token, version):
            yield [{**message, "job": job.number} for message in messages]

    monkeypatch.setattr(on_node, "run_phase", elsewhere)
    store = RemoteStore(f"file://{tmp_path / 'bucket'}", trusting=True)
    result = run(laboratory.stage("a"), laboratory.stage("b", {"x": "a"}), store=store)
    assert result.complete and (result.found("b").folder / "out").is_file()
    for name in "ab":
        assert laboratory.log(name).count(f"printed by {name}") == 1
    assert not (tmp_path / "not here").exists() and (tmp_path / "bucket" / "objects").is_dir()
