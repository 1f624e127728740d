"""Runs code that nobody has read: generated Python and JavaScript, without network, others' files or processes.

    outcome = run("print(1 + 1)", "python")
    outcome.status, outcome.stdout          # passed, "2\\n"

The program is one process (threads are allowed) in an empty folder. Each layer that the machine offers is used, and the
outcome names them; where one that is needed is missing, `run` refuses. docs/sandbox.md has the threat model.
"""

from finetrial.sandbox.languages import Language
from finetrial.sandbox.layers import Layer, Layers, SandboxError, doctor_lines, probe
from finetrial.sandbox.outcome import Limits, Outcome, Status
from finetrial.sandbox.runner import Program, run, run_many

__all__ = ["Language", "Layer", "Layers", "Limits", "Outcome", "Program", "SandboxError", "Status", "doctor_lines",
           "probe", "run", "run_many"]
