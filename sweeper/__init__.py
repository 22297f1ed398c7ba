"""Find the MoE kernel backend that really decodes fastest on this machine, and prove it."""

__version__ = "0.1.0"
