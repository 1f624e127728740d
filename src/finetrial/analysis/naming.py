"""The names of control arms: the planner gives them, the analysis finds them."""

from __future__ import annotations

from finetrial.spec.arm import Controls


def positive_control_name(controls: Controls) -> str:
    """`<arm>-x10`: the arm at ten times the centre of its grid. Raises ValueError if there is no positive control."""
    if controls.positive is None:
        raise ValueError("these controls have no positive control")
    return f"{controls.positive.arm}-x{controls.positive.rate_factor:g}"


def aa_name(controls: Controls) -> str:
    """`<reference>-aa`: the reference arm again, with every random stream drawn anew."""
    return f"{controls.reference}-aa"
