"""What is not there: the reason travels to the finding that needed it."""

from __future__ import annotations


class NotMeasured(Exception):
    """A quantity that the records do not hold. Caught where a finding or a measure is made; its text is the reason.

    `arm` says whose it is, so that the same reason for several seeds is told once.
    """

    def __init__(self, why: str, arm: str = "") -> None:
        super().__init__(f"{arm}: {why}" if arm else why)
        self.why = why
        self.arm = arm
