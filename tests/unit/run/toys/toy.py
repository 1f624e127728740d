"""A stage that does what its specification says, without torch. What is not identity comes through `locations`.

`started`: a file that gets one line, `<stage id> <process id>`, for each start. `kill`: a file that names a moment
("mid-stage", "before-rename", "after-rename"); whoever finds it removes it and dies there by SIGKILL.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from finetrial.stages.base import Diverged, StageContext, StageKind, StageTimeout


class Held:
    """What a group keeps in memory."""


class Toy(StageKind):
    """Returns `value`: a digest of its specification and of its inputs' values."""

    @classmethod
    def batch_rows(cls, spec):
        return spec.get("rows")

    @classmethod
    def shared_by_stack(cls, spec):
        return {"alike": spec["alike"]} if "alike" in spec else None

    def run_together(self, contexts):
        """Each as it would be alone; the whole fails or dies if a file `memory` beside any of them says so, or `fits N` another number."""
        for context in contexts:
            trouble = Path(context.locations["memory"])
            if trouble.exists():
                if trouble.read_text() == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                if trouble.read_text() != f"fits {len(contexts)}":
                    raise RuntimeError("CUDA out of memory")
        found = []
        for context in contexts:
            context.execution["stacked_cells"] = len(contexts)
            try:
                found.append(self.run(context))
            except (Diverged, StageTimeout) as error:
                found.append(error)
        return found

    def run(self, context: StageContext):
        if "started" in context.locations:
            with open(context.locations["started"], "a") as file:
                file.write(f"{context.stage_id} {os.getpid()}\n")
        _arm(context)
        print("printed by", context.stage_id)
        context.log.info("logged by %s", context.stage_id)
        context.progress({"fraction": 0.5, "loss": 1.25, "text": "ignored"})
        return getattr(self, context.spec.get("do", "work").replace("-", "_"))(context)

    def work(self, context):
        """Several steps with a checkpoint after each; goes on from one that an earlier attempt left."""
        state = context.checkpoint / "state"
        step, text = 0, repr([(name, entry.record.values["value"], (entry.folder / "out").read_text())
                              for name, entry in sorted(context.inputs.items())])
        if state.exists():
            step, text = int(state.read_text().split(" ", 1)[0]), state.read_text().split(" ", 1)[1]
        while step < context.spec.get("steps", 1):
            text = hashlib.sha256(f"{text} {step} {context.spec.get('value')}".encode()).hexdigest()
            for _ in range(context.spec.get("rounds", 0)):
                hashlib.sha256(text.encode()).hexdigest()
            step += 1
            (context.checkpoint / "part").write_text(f"{step} {text}")
            os.replace(context.checkpoint / "part", state)
        (context.folder / "out").write_text(text)
        return {"value": text, "inputs": sorted(context.inputs)}

    def choose(self, context):
        return {**self.work(context), "chosen": context.spec["chosen"]}

    def share(self, context):
        earlier = context.shared.setdefault("ids", [])
        earlier.append(context.stage_id)
        return {**self.work(context), "pid": os.getpid(), "earlier": list(earlier)}

    def hold(self, context):
        """As one that leaves a model for what follows in its group; how many there are."""
        context.shared.setdefault("model", Held())
        return {**self.work(context), "held": sum(isinstance(thing, Held) for thing in gc.get_objects())}

    def note(self, context):
        """Keep something in the cache, and note for the record what was there."""
        there = sorted(path.name for path in context.cache.iterdir()) if context.cache.exists() else []
        context.cache.mkdir(parents=True, exist_ok=True)
        (context.cache / context.spec["value"]).write_text("")
        context.execution["found"] = there
        return self.work(context)

    def libraries(self, context):
        needed = ("torch", "peft", "accelerate", "transformers.models.llama.modeling_llama", "finetrial.train.loop")
        return {**self.work(context), "imported": all(name in sys.modules for name in needed),
                "threads": sys.modules["torch"].get_num_threads()}

    def diverge(self, context):
        raise Diverged(3, float("nan"))

    def fail(self, context):
        raise KeyError("a\nmistake")

    def fail_once(self, context):
        """FAILED at the first attempt only."""
        path = Path(context.locations["memory"])
        if not path.exists():
            path.write_text("")
            raise ValueError("the first time")
        return self.work(context)

    def leave(self, context):
        os._exit(0)

    def segfault(self, context):
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)

    def unstable(self, context):
        return {"loss": float("nan")}

    def reserved(self, context):
        (context.folder / "record.json").write_text("{}")
        return {}

    def fill_disk(self, context):
        raise OSError(errno.ENOSPC, "No space left on device")

    def hidden_full_disk(self, context):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    def need_memory(self, context):
        """Fits if at most `fits` rows are taken at a time; one row more with activation checkpointing."""
        rows = context.micro_batch or context.spec.get("rows", 1)
        with open(context.locations["memory"], "a") as file:
            file.write(f"{rows}\n")
        if rows > context.spec["fits"] + context.activation_checkpointing:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return self.work(context)

    def heed_deadline(self, context):
        assert context.deadline is not None
        raise StageTimeout(7)

    def hang(self, context):
        """With a child of its own, whose pid it leaves in `memory`."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        Path(context.locations["memory"]).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(120)

    def wait_for(self, context):
        """Until the file `memory` is there."""
        while not Path(context.locations["memory"]).exists():
            time.sleep(0.005)
        return self.work(context)

    def die(self, context):
        """By SIGKILL at the first `deaths` attempts."""
        path = Path(context.locations["memory"])
        deaths = len(path.read_text()) if path.exists() else 0
        if deaths < context.spec["deaths"]:
            path.write_text("x" * (deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.work(context)


def _arm(context):
    """Die at the moment that the file `kill` names, if it is there."""
    path = Path(context.locations.get("kill", "/nowhere"))
    try:
        moment = path.read_text()
        path.unlink()
    except FileNotFoundError:
        return
    if moment == "mid-stage":
        os.kill(os.getpid(), signal.SIGKILL)
    rename = os.rename

    def deadly(source, target):
        if moment == "after-rename":
            rename(source, target)
        os.kill(os.getpid(), signal.SIGKILL)

    os.rename = deadly
