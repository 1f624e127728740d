"""Generation: many prompts at once, each answered as if it were alone."""

from finetrial.generate.answers import Generation
from finetrial.generate.beams import Beams
from finetrial.generate.constraints import Constraints
from finetrial.generate.decoding import decode
from finetrial.generate.sampling import Sampling

__all__ = ["Beams", "Constraints", "Generation", "Sampling", "decode"]
