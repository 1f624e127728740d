from __future__ import annotations

import json
import subprocess

from finetrial.run.provenance import environment, host_facts, known_cpu_capability


def test_the_environment_is_what_torch_says_and_is_remembered(tmp_path, monkeypatch):
    import torch

    cache = tmp_path / "cache" / "file.json"
    assert known_cpu_capability(cache) is None
    found = environment("cpu", cache=cache)
    assert found.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert (found.device, found.device_name, found.torch) == ("cpu", None, torch.__version__)
    remembered = json.loads(cache.read_text())
    cache.write_text(json.dumps(dict.fromkeys(remembered, "REMEMBERED")))
    assert environment("cpu", cache=cache).cpu_capability == "REMEMBERED"
    assert known_cpu_capability(cache) == "REMEMBERED"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # other circumstances
    assert environment("cpu", cache=cache).cpu_capability == torch.backends.cpu.get_cpu_capability()


def test_a_cache_that_cannot_be_written_or_read_does_no_harm(tmp_path):
    (tmp_path / "file").write_text("not JSON")
    expected = environment("cpu", cache=tmp_path / "cache")
    assert environment("cpu", cache=tmp_path / "file" / "below") == expected
    assert environment("cpu", cache=tmp_path / "file") == expected


def test_host_facts_are_plain_and_know_git(tmp_path):
    facts = host_facts("finetrial run x", tmp_path)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["git_commit"] is None and facts["packages"]["torch"] and facts["cores"] >= 1
    assert facts["memory_bytes"] > 1e8
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    commit = host_facts("", tmp_path)["git_commit"]
    assert len(commit) == 40
    (tmp_path / "file").write_text("changed")
    assert host_facts("", tmp_path)["git_commit"] == f"{commit}+changes"
