"""The checks of `bench/gpu_check.py`, each a function of the setting."""
