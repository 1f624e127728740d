"""The figures of a report: one file each, a function from facts to a `Figure`; None where there is nothing to show."""

from altair.utils import schemapi

from finetrial.report.facts import Facts
from finetrial.report.figures import (
    curves,
    distributions,
    efficiency,
    factors,
    forest,
    interaction,
    matrix,
    plane,
    rates,
    transfer,
)
from finetrial.report.figures.theme import Figure, Panel

__all__ = ["Figure", "Panel", "all_figures"]

_IN_ORDER = (plane, factors, interaction, matrix, transfer, distributions, rates, curves, forest, efficiency)


def all_figures(facts: Facts) -> tuple[Figure, ...]:
    """Every figure that has something to show, in the order of the report."""
    with schemapi.debug_mode(False):  # altair checks every part of a chart against its schema: seconds; a test does it
        made = [module.figure(facts) for module in _IN_ORDER]
    return tuple(figure for figure in made if figure is not None)
