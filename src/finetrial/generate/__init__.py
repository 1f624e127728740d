"""Generation: many prompts at once, each answered as if it were alone."""

from finetrial.generate.decoding import Generation, decode
from finetrial.generate.sampling import Sampling

__all__ = ["Generation", "Sampling", "decode"]
