"""Well-meant programs: what they see, how they end, and what is asked for where the sandbox is not complete."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetrial.errors import UserError
from finetrial.sandbox import Limits, Program, SandboxError, Status, doctor_lines, probe, run, run_many, runner
from finetrial.sandbox import languages as languages_module
from finetrial.sandbox import layers as layers_module
from finetrial.sandbox import start as start_module
from finetrial.sandbox.languages import find_node, python_runtime, runtime, runtime_version
from finetrial.sandbox.layers import Layer, Layers
from finetrial.sandbox.usage import MOST_LEVELS, is_larger

needs_sandbox = pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")
needs_node = pytest.mark.skipif(find_node() is None, reason="needs Node: pip install 'finetrial[javascript]'")
SLOW_MACHINE = 120.0
UNLINKED = """
import ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def unlinked():
    file = open("name", "w+b")
    os.remove("name")
    file.write(bytes(1 << 20))
    file.flush()
    return file
"""
TOO_MUCH = {  # 16 MB each, where 4 are allowed
    "below a long path": """
import os, time
for _ in range(18):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
for number in range(16):
    open(str(number), "wb").write(bytes(1 << 20))
time.sleep(60)
""",
    "in a folder that nobody may list": """
import os, time
os.mkdir("closed", 0o300)
for number in range(16):
    open(f"closed/{number}", "wb").write(bytes(1 << 20))
time.sleep(60)
""",
    "in open files without a name": UNLINKED + """
files = [unlinked() for _ in range(16)]
time.sleep(60)
""",
    "in open files without a name, its first thread gone": UNLINKED + """
files = [unlinked() for _ in range(16)]
threading.Thread(target=time.sleep, args=(60,)).start()
libc.syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
""",
    "in open files without a name, threads coming and going": UNLINKED + """
files = [unlinked() for _ in range(16)]
while True:
    threading.Thread(target=int).start()
""",
    "in mapped files without a name": UNLINKED + """
libc.mmap.restype = ctypes.c_void_p
for _ in range(16):
    with unlinked() as file:
        read, shared = 1, 1
        mapped = libc.mmap(None, ctypes.c_size_t(4096), read, shared, file.fileno(), ctypes.c_long(0))
        assert mapped != ctypes.c_void_p(-1).value
time.sleep(60)
""",
}


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sandboxes are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@needs_sandbox
class TestPython:
    def test_a_program(self, folder_of_its_own: Path) -> None:
        outcome = run("import sys\nprint(sys.stdin.read().upper())\nprint('é', file=sys.stderr)", "python",
                      stdin="straße")
        assert (outcome.status, outcome.exit_code) == (Status.PASSED, 0)
        assert (outcome.stdout, outcome.stderr) == ("STRASSE\n", "é\n")
        assert outcome.passed
        assert 0 < outcome.cpu_seconds < Limits().cpu_seconds
        assert set(outcome.layers) >= {"limits", "seccomp"}
        assert list(folder_of_its_own.iterdir()) == []

    def test_what_it_finds(self) -> None:
        """An empty folder it can write to, its own; no packages, no environment of ours."""
        outcome = run("""
import os, sys, tempfile
assert os.listdir() == []
os.mkdir("new")
with open("new/file", "w") as file:
    file.write("text")
os.rename("new/file", "here")  # from one of its folders to another
os.rename("here", "new/other")
assert open("new/other").read() == "text"
assert tempfile.gettempdir() == os.getcwd() == os.environ["HOME"]
assert set(os.environ) <= {"HOME", "TMPDIR", "PYTHONHASHSEED", "LC_CTYPE"}, os.environ
assert not any("site-packages" in path for path in sys.path)
""", "python")
        assert outcome.passed, outcome.stderr

    def test_a_umask_that_keeps_files_private(self) -> None:
        """The program's file is read by a user who is not its owner, where root gives itself up."""
        before = os.umask(0o077)
        try:
            outcome = run("open('new', 'w').write('text')\nprint(open('new').read())", "python")
        finally:
            os.umask(before)
        assert outcome.stdout == "text\n", outcome.stderr

    def test_threads_and_event_loops_work(self) -> None:
        outcome = run("""
import asyncio, threading
async def main():
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)), asyncio.to_thread(int))
asyncio.run(main())
threading.Thread(target=print, args=("done",)).start()
""", "python")
        assert (outcome.status, outcome.stdout) == (Status.PASSED, "done\n"), outcome.stderr

    def test_sets_have_one_order(self) -> None:
        texts = {run("print({str(x) for x in range(50)})", "python").stdout for _ in range(2)}
        assert len(texts) == 1

    @pytest.mark.parametrize(("code", "status", "exit_code"), [
        ("raise SystemExit(3)", Status.FAILED, 3),
        ("def f(:", Status.FAILED, 1),
        ("import numpy", Status.FAILED, 1),
        ("import os; os.abort()", Status.FAILED, -signal.SIGABRT),
        ("x = [0] * 10 ** 12", Status.MEMORY, 1),
        ("x = '\ud800'", Status.FAILED, 1),
    ])
    def test_how_it_ends(self, code: str, status: Status, exit_code: int) -> None:
        outcome = run(code, "python")
        assert (outcome.status, outcome.exit_code) == (status, exit_code)

    def test_output_is_cut_at_the_limit(self) -> None:
        outcome = run("print('x' * 5000)", "python", limits=Limits(output_bytes=1000))
        assert outcome.status is Status.OUTPUT
        assert outcome.stdout == "x" * 1000

    def test_without_namespaces_all_files_together_are_limited(self) -> None:
        layers = probe().without("namespaces")
        if layers.missing:
            pytest.skip("needs Landlock")
        code = "import time\nfor i in range(20000):\n    open(str(i), 'wb').write(bytes(1 << 16)); time.sleep(0.001)"
        assert run(code, "python", limits=Limits(folder_bytes=1 << 20), layers=layers).status is Status.FILES


    @pytest.mark.parametrize("code", TOO_MUCH.values(), ids=TOO_MUCH)
    def test_without_namespaces_no_file_is_overlooked(self, code: str) -> None:
        layers = probe().without("namespaces")
        if layers.missing:
            pytest.skip("needs Landlock")
        limits = Limits(folder_bytes=4 << 20, file_bytes=1 << 20, wall_seconds=20.0)
        assert run(code, "python", limits=limits, layers=layers).status is Status.FILES

    def test_without_namespaces_a_busy_folder_is_not_too_large(self) -> None:
        """What vanishes while it is looked at is nothing; files without a name, stdin too, are few bytes."""
        layers = probe().without("namespaces")
        if layers.missing:
            pytest.skip("needs Landlock")
        outcome = run(f"""
import mmap, os, sys, tempfile, time
os.makedirs("/".join("d" * {MOST_LEVELS}))
kept = tempfile.TemporaryFile()
kept.write(bytes(4096))
kept.flush()
mapped = mmap.mmap(kept.fileno(), 4096)
end = time.monotonic() + 0.3
while time.monotonic() < end:
    with tempfile.TemporaryDirectory() as folder, open(folder + "/file", "w") as file:
        file.write("text")
print(len(sys.stdin.read()))
""", "python", stdin="x" * (2 << 20), limits=Limits(folder_bytes=1 << 20, file_bytes=1 << 20), layers=layers)
        assert (outcome.status, outcome.stdout) == (Status.PASSED, f"{2 << 20}\n"), outcome.stderr

    @pytest.mark.parametrize("left_out", [(), ("uid",), ("namespaces",), ("uid", "namespaces")])
    def test_threads_are_limited(self, left_out: tuple[str, ...]) -> None:
        """Root's too, which the kernel does not limit."""
        layers = probe().without(*left_out)
        if layers.missing:
            pytest.skip("needs Landlock")
        code = """
import threading, time
threading.stack_size(1 << 16)
for _ in range(30):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(60)
"""
        limits = Limits(threads=8, wall_seconds=20.0)
        assert run(code, "python", limits=limits, layers=layers).status is Status.FAILED


@needs_sandbox
@needs_node
class TestJavaScript:
    def test_a_program(self) -> None:
        outcome = run("const fs = require('fs'); fs.writeFileSync('a', 'b'); console.log(fs.readdirSync('.').join(), "
                      "fs.readFileSync(0, 'utf8'))", "javascript", stdin="in")
        assert (outcome.status, outcome.stdout) == (Status.PASSED, "a in\n"), outcome.stderr

    def test_an_error(self) -> None:
        outcome = run("Promise.reject(new Error('no'))", "javascript")
        assert (outcome.status, outcome.exit_code) == (Status.FAILED, 1)
        assert "Error: no" in outcome.stderr


@needs_sandbox
class TestMany:
    def test_outcomes_are_in_order(self) -> None:
        programs = [Program(f"import time; time.sleep({(5 - i) / 50}); print({i})", "python") for i in range(5)]
        assert [outcome.stdout for outcome in run_many(programs, 3)] == [f"{i}\n" for i in range(5)]

    def test_an_interruption_ends_the_programs(self, monkeypatch: pytest.MonkeyPatch, folder_of_its_own: Path) -> None:
        """As Ctrl-C does: one program fails to be run, the one beside it sleeps."""
        running = threading.Event()
        original = runner._run

        def fails(program: Program, *arguments: object) -> object:
            if program.code == "fails":
                running.wait(SLOW_MACHINE)
                raise KeyboardInterrupt
            running.set()
            return original(program, *arguments)  # type: ignore[arg-type]

        run("", "python")  # so that nothing is left to prove
        monkeypatch.setattr(runner, "_run", fails)
        programs = [Program("fails", "python"), Program("import time; time.sleep(3600)", "python")]
        with pytest.raises(KeyboardInterrupt):
            run_many(programs, 2, limits=Limits(wall_seconds=3600.0))
        assert list(folder_of_its_own.iterdir()) == []


class TestRefusal:
    @pytest.mark.parametrize("absent", [("seccomp",), ("landlock", "namespaces"), ("limits",)])
    def test_a_missing_wall_is_named(self, absent: tuple[str, ...]) -> None:
        with pytest.raises(SandboxError, match="generated code is not run") as caught:
            run("print()", "python", layers=probe().without(*absent))
        assert all(f"{name}: left out" in caught.value.problem for name in absent)
        assert "--allow-unsandboxed" in caught.value.mend

    def test_one_wall_around_the_files_is_enough(self) -> None:
        everything = Layers(tuple(Layer(name) for name in ("limits", "seccomp", "landlock", "namespaces", "uid")))
        assert everything.missing == everything.without("landlock", "uid").missing == ()
        assert everything.without("namespaces").missing == ()
        assert everything.without("namespaces", "landlock").missing == ("no files but its own",)

    def test_it_can_be_allowed(self) -> None:
        outcome = run("print(1)", "python", layers=probe().without("seccomp", "landlock", "namespaces", "uid"),
                      allow_unsandboxed=True)
        assert (outcome.stdout, outcome.layers) == ("1\n", ("limits",))

    @needs_sandbox
    def test_an_interpreter_that_does_not_start_is_no_outcome(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise every program would count as wrong."""
        monkeypatch.setattr(runner, "PROVEN", "something else")
        runner._prove.cache_clear()
        with pytest.raises(SandboxError, match="does not start in the sandbox"):
            run("print(1)", "python")
        runner._prove.cache_clear()

    def test_a_layer_that_fails_stops_all(self, monkeypatch: pytest.MonkeyPatch, folder_of_its_own: Path) -> None:
        """It is there when probed, and then it is not: nothing runs."""
        monkeypatch.setattr(runner, "_resource_limits", lambda *_: {"NONSENSE": 1})
        with pytest.raises(SandboxError, match="cannot be set up: AttributeError.*RLIMIT_NONSENSE"):
            runner._run(Program("print(1)", "python"), Limits(), probe())
        assert list(folder_of_its_own.iterdir()) == []

    @needs_sandbox
    @pytest.mark.parametrize(("script", "said"), [
        ("#!/bin/sh\nexit 0\n", "exit code 0"),
        ("#!/bin/sh\nexit 127\n", "exit code 127"),
        ("#!/bin/sh\nkill -9 $$\n", "exit code -9"),
        ("#!/bin/sh\necho out of luck >&2\nexit 1\n", "out of luck"),
    ])
    def test_a_launcher_that_dies_has_launched_nothing(self, script: str, said: str, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
        use_launcher(script, tmp_path, monkeypatch)
        for name in ("seccomp", "landlock", "namespaces", "uid"):
            assert layers_module._try(name) == f"the launcher ended without a report ({said})"
        with pytest.raises(SandboxError, match="cannot be set up: the launcher ended without a report"):
            runner._run(Program("print(1)", "python"), Limits(), probe())

    @needs_sandbox
    def test_a_layer_is_tried_to_the_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = (f"#!{os.path.realpath(sys.executable)}\nimport marshal, os, sys\n"
                  "request = marshal.loads(bytes.fromhex(sys.argv[-1]))\n"
                  "os.write(request['report_fd'], request['ready'])\nsys.exit(3)\n")
        use_launcher(script, tmp_path, monkeypatch)
        assert layers_module._try("seccomp") == "the launcher ended with exit code 3"

    def test_languages(self) -> None:
        with pytest.raises(UserError, match="unknown language 'pyton'; did you mean 'python'"):
            runtime("pyton")

    @pytest.mark.parametrize(("name", "value"), [("cpu_seconds", 0), ("cpu_seconds", 1.5), ("wall_seconds", -1.0),
                                                 ("threads", True), ("memory_bytes", "1 GB")])
    def test_limits(self, name: str, value: object) -> None:
        with pytest.raises(UserError, match=f"sandbox limit {name}: {value!r}, expected a positive number"):
            Limits(**{name: value})  # type: ignore[arg-type]


def use_launcher(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else in the place of the interpreter that puts the layers on."""
    probe()  # of the right one
    executable = folder / "launcher"
    executable.write_text(script, encoding="utf-8")
    executable.chmod(0o755)
    replaced = dataclasses.replace(python_runtime(), executable=str(executable))
    monkeypatch.setattr(start_module, "python_runtime", lambda: replaced)


class TestVersions:
    @needs_sandbox
    @pytest.mark.parametrize(("language", "program"), [
        ("python", "import sys; print('%d.%d' % sys.version_info[:2])"),
        pytest.param("javascript", "console.log(process.versions.node.split('.')[0])", marks=needs_node)])
    def test_it_is_that_of_the_interpreter_that_programs_meet(self, language: languages_module.Language, program: str) -> None:
        runtime_version.cache_clear()
        assert run(program, language).stdout == f"{runtime_version(language)}\n"

    @pytest.mark.parametrize(("script", "version"), [
        ("echo v22.21.1", "22"), ("exit 1", None), ("echo", None), (None, None)])
    def test_node_is_asked_once(self, script: str | None, version: str | None, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
        node, asked = tmp_path / "node", tmp_path / "asked"
        if script is not None:
            node.write_text(f"#!/bin/sh\necho $1 >> {asked}\n{script}\n", encoding="utf-8")
            node.chmod(0o755)
        monkeypatch.setattr(languages_module, "find_node", lambda: str(node) if script is not None else None)
        runtime_version.cache_clear()
        assert [runtime_version("javascript") for _ in range(2)] == [version] * 2
        assert script is None or asked.read_text() == "--version\n"
        runtime_version.cache_clear()

    def test_a_language_that_is_not_known_has_none(self) -> None:
        assert runtime_version("pyton") is None


class TestUsage:
    def test_files_are_added_up(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_bytes(bytes(100))
        (tmp_path / "link").symlink_to(sys.executable)
        size = 100 + os.lstat(tmp_path / "link").st_size
        assert not is_larger(tmp_path, size)
        assert is_larger(tmp_path, size - 1)
        assert is_larger(tmp_path, size, unlinked_bytes=1)

    def test_a_file_that_vanishes_takes_no_other_with_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("one", "other"):
            (tmp_path / name).write_bytes(bytes(100))
        original = os.scandir

        @contextlib.contextmanager
        def removes_the_first(folder: int) -> Iterator[list[os.DirEntry[str]]]:
            with original(folder) as entries:
                listed = list(entries)
            os.unlink(listed[0].name, dir_fd=folder)
            yield listed

        monkeypatch.setattr(os, "scandir", removes_the_first)
        assert is_larger(tmp_path, 99)

    def test_deep_folders(self, tmp_path: Path) -> None:
        deepest = tmp_path.joinpath(*["d"] * MOST_LEVELS)
        deepest.mkdir(parents=True)
        assert not is_larger(tmp_path, 0)
        (deepest / "d").mkdir()
        assert is_larger(tmp_path, 0)

    def test_what_is_gone_is_nothing(self, tmp_path: Path) -> None:
        assert not is_larger(tmp_path / "gone", 0)

    def test_a_shortage_of_our_own_is_not_the_programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object, **__: object) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(os, "open", fails)
        with pytest.raises(OSError, match="too many open files"):
            is_larger(tmp_path, 1)


class TestDoctor:
    def test_every_layer_has_a_line(self) -> None:
        lines = doctor_lines()
        assert [line[0] for line in lines][1:-1] == [f"sandbox: {layer.name}" for layer in probe().layers]
        assert lines[0][1] == (not probe().missing)
        assert all(found and (well or mend) for _, well, found, mend in lines)

    def test_a_user_whose_programs_root_could_not_end_is_no_wall(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def root(capabilities: str) -> str:
            monkeypatch.setattr(Path, "read_text", lambda path, **options: f"Name:\tx\nCapEff:\t{capabilities}\n")
            return layers_module._cannot_end_others()

        assert root("000001ffffffffff") == "" and root("0000000000000020") == ""
        assert "CAP_KILL" in root("000001ffffffffdf")

    def test_what_is_missing_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layers_module, "probe", lambda: probe().without("seccomp"))
        name, well, found, _ = doctor_lines()[0]
        assert (name, well) == ("sandbox", False)
        assert "no network" in found
