"""Models: the one place that loads them, the one that knows their blocks, and who owns which parameter."""
