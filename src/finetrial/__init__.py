"""finetrial: controlled trials of ways to adapt a pretrained language model."""

__version__ = "0.1.0"
