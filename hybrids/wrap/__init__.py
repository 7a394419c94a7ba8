"""Mixers made of another mixer by changing the order in which it sees the tokens."""

from hybrids.wrap.bidirectional import Bidirectional
from hybrids.wrap.image_scan import ImageScan
from hybrids.wrap.reverse_complement import ReverseComplement

__all__ = ["Bidirectional", "ImageScan", "ReverseComplement"]
