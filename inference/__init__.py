"""Uses a trained model: generates from it, and counts its cost."""

from checkout import warn_of_strangers
from inference.generate import Generated, generate, stream
from inference.sampling import Sampler, make_sampler

__all__ = ["Generated", "Sampler", "generate", "make_sampler", "stream"]

warn_of_strangers()
