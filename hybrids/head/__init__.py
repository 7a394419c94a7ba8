"""Heads, which turn a body's outputs into a model's answers, and compute the losses of these answers."""

from hybrids.head.adaptive_softmax import AdaptiveSoftmax
from hybrids.head.autoencoder import Autoencoder
from hybrids.head.classifier import Classifier
from hybrids.head.dual_encoder import DualEncoder
from hybrids.head.head import Head, Outputs, Sums
from hybrids.head.lm import LanguageModel, MaskedLanguageModel
from hybrids.head.multi_token import MultiToken
from hybrids.head.regression import Regression

__all__ = ["HEADS", "Head", "Outputs", "Sums"]

HEADS: dict[str, type[Head]] = {
  "adaptive_softmax": AdaptiveSoftmax,
  "autoencoder": Autoencoder,
  "classifier": Classifier,
  "dual_encoder": DualEncoder,
  "lm": LanguageModel,
  "masked_lm": MaskedLanguageModel,
  "multi_token": MultiToken,
  "regression": Regression,
}
