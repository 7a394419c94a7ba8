"""A model's first layer: tokens, features or patches become vectors, and their positions are added."""

from hybrids.embed.adaptive import Adaptive
from hybrids.embed.embedding import DTYPES, Embedded, Embedding
from hybrids.embed.features import ConvStem, Features, Patches
from hybrids.embed.ngrams import NGrams
from hybrids.embed.tokens import Strands, Tokens

__all__ = ["DTYPES", "EMBEDDINGS", "Embedded", "Embedding"]

EMBEDDINGS: dict[str, type[Embedding]] = {
  "adaptive": Adaptive,
  "conv_stem": ConvStem,
  "features": Features,
  "ngrams": NGrams,
  "patches": Patches,
  "strands": Strands,
  "tokens": Tokens,
}
