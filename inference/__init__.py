"""Uses a trained model: generates from it, and counts its cost."""

from checkout import warn_of_strangers
from inference.beam import beam_search
from inference.generate import Generated, generate, stream
from inference.sampling import Sampler, make_sampler

__all__ = ["Generated", "Sampler", "beam_search", "generate", "make_sampler", "stream"]

warn_of_strangers()
