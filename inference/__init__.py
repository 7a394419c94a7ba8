"""Uses a trained model: generates from it, and counts its cost."""

from checkout import warn_of_strangers
from inference.generate import generate
from inference.sampling import Sampler, make_sampler

__all__ = ["Sampler", "generate", "make_sampler"]

warn_of_strangers()
