"""Measures: one file per quantity made from the score table R[k, j] (score on task j after phase k)."""
