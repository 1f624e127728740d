"""Scorers: one file per metric. A scorer turns raw predictions into statistics per item, and sums into the value.

The modules named below are what several metrics share, not metrics.
"""

NOT_PLUGINS = ("outputs", "rouge", "syntax", "tokens")
