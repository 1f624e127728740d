"""How many processes may compute a stage together, and what is said where they cannot."""

from __future__ import annotations

import pytest

from finetrial.errors import UserError
from finetrial.run.ranks import check_processes, device_of, how
from finetrial.stages.base import Stage
from finetrial.train.data_parallel import DataParallel

TRAIN = Stage("train/a", "train", 2, {"training": {"batch_sequences": 4}}, label="full, 3e-4, seed 1")
PREDICT = Stage("predict/a", "predict", 1, {})


@pytest.mark.parametrize(("processes", "options", "message", "mend"), [
    (5, {}, "a training step of full, 3e-4, seed 1 has 4 rows", "--processes 4"),
    (2, {"stack": 8}, "--stack 8 and --processes 2", "leave one of them out"),
    (2, {"device": "mps"}, "on the device mps", "cpu or cuda"),
    (2, {"device": "cuda:1"}, "on the device cuda:1", "from the first on"),
    (2, {"device": "cuda"}, "this machine has 1 GPU", "--processes 1")])
def test_what_cannot_be_is_refused(monkeypatch, processes, options, message, mend):
    monkeypatch.setattr("finetrial.run.ranks._gpus", lambda: 1)
    with pytest.raises(UserError) as refused:
        check_processes(processes, [PREDICT, TRAIN], **{"device": "cpu", "stack": 1, "local": True, **options})
    assert message in refused.value.problem and mend in (refused.value.mend or "")


def test_what_can_be_is_not(monkeypatch):
    monkeypatch.setattr("finetrial.run.ranks._gpus", lambda: 1)
    check_processes(4, [PREDICT, TRAIN], "cpu", stack=1, local=True)
    check_processes(1, [TRAIN], "mps", stack=8, local=True)
    check_processes(4, [TRAIN], "cuda", stack=1, local=False)  # a cluster's nodes have what they say


def test_each_has_a_gpu_of_its_own():
    assert [device_of("cuda", DataParallel(rank, 2)) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert device_of("cuda", DataParallel()) == "cuda" and device_of("cpu", DataParallel(1, 2)) == "cpu"
    assert how("cuda", 2) == {"processes": {"count": 2, "form": "data parallel", "backend": "cpu:gloo,cuda:nccl"}}
    assert how("cuda", 1) == {}
