"""What is not there: the reason travels to the finding that needed it."""

from __future__ import annotations


class NotMeasured(Exception):
    """A quantity that the records do not hold. Caught where a finding or a measure is made; its text is the reason."""
