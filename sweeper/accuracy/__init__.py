"""Accuracy presets against a running server, and results of other harnesses read in. Statistics: `core.accuracy`."""
