"""The figures of a report: one file each, a function from facts to a `Figure`, or None where there is nothing to show."""

from finetrial.report.facts import Facts
from finetrial.report.figures import curves, efficiency, forest, plane, rates
from finetrial.report.figures.theme import Figure, Panel

__all__ = ["Figure", "Panel", "all_figures"]

_IN_ORDER = (plane, rates, curves, forest, efficiency)


def all_figures(facts: Facts, *, legend: bool = False) -> tuple[Figure, ...]:
    """Every figure that has something to show, in the order of the report. `legend`: drawn into the charts."""
    made = (module.figure(facts, legend) for module in _IN_ORDER)
    return tuple(figure for figure in made if figure is not None)
