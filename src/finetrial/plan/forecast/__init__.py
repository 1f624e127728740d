"""What a study will need in memory, on disk and in time, from the configurations of its bases alone. No torch.

`shapes` reads a configuration, `trained` says what a method trains and how far gradients reach, `activations` what a
training step keeps for its backward pass, `memory` adds up each kind of stage, `time` counts operations, `study` goes
through a plan, `device` says what fits and what to change, `show` prints. docs/forecast.md has every formula.
"""
