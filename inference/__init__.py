"""What a trained model is used for: generating, and counting what it costs."""

from inference.generate import generate
from inference.sampling import Sampler, make_sampler

__all__ = ["Sampler", "generate", "make_sampler"]
