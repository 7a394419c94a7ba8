"""Mixers made of another mixer by changing the order in which it sees the tokens."""

from hybrids.wrap.bidirectional import Bidirectional

__all__ = ["Bidirectional"]
