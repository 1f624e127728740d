"""A study as data: what is asked, of which models, by which arms, at what budget."""

from finetrial.spec.arm import Arm, Component, Controls, PositiveControl
from finetrial.spec.hypothesis import Contrast, Hypothesis
from finetrial.spec.study import Base, Evaluation, Sequence, Study, TaskUse

__all__ = ["Arm", "Base", "Component", "Contrast", "Controls", "Evaluation", "Hypothesis", "PositiveControl",
           "Sequence", "Study", "TaskUse"]
