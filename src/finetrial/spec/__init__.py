"""A study as data: what is asked, of which models, by which arms, at what budget."""

from finetrial.spec.arm import Arm, Component, Controls, PositiveControl
from finetrial.spec.claims import PublishedClaim
from finetrial.spec.evaluation import Evaluation
from finetrial.spec.hypothesis import Contrast, Hypothesis
from finetrial.spec.match import Match
from finetrial.spec.slots import Carry
from finetrial.spec.study import Limits, Sequence, Study
from finetrial.spec.uses import Base, Decoding, Sampling, TaskUse

__all__ = ["Arm", "Base", "Carry", "Component", "Contrast", "Controls", "Decoding", "Evaluation", "Hypothesis", "Limits",
           "Match", "PositiveControl", "PublishedClaim", "Sampling", "Sequence", "Study", "TaskUse"]
