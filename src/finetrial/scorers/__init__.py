"""Scorers: one file per metric. A scorer turns raw predictions into statistics per item, and sums into the value."""
