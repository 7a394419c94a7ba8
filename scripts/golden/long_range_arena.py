"""Google's attention of the Long Range Arena, between the linear maps: linear, Performer's and BigBird's.

Its layers are modules of a flax that is no more; these parts are functions, and a class without parameters.
"""

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.efficient_attention import BLOCK, CHOSEN, FEATURES, B, D, H, T, tokens
from scripts.golden.recipe import Recipe, under, with_jax_gradients

REPOSITORY, MODELS = "google-research/long-range-arena", "lra_benchmarks/models"
JAX = (
  "import abc\nimport jax\nimport jax.numpy as jnp\nimport numpy as onp\nfrom jax import lax\nfrom typing import *\n"
)


def linear_transformer(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs attention to all tokens."""
  rng = np.random.default_rng(0)
  run = lambda inputs: (official["linear_attention"](inputs["q"], inputs["k"], inputs["v"]),)
  return with_jax_gradients(run, tokens(rng, B, T, H, D // H), rng)


def performer(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs attention by given features, softmax's with nothing added to them and ReLU's, full and causal."""
  creators = {
    "softmax": lambda data, W, *rest: official["nonnegative_softmax_kernel_feature_creator"](
      data, W, *rest, normalize_data=True, eps=0.0
    ),
    "relu": lambda data, W, attention, batch, precision, is_query: official["generalized_kernel_feature_creator"](
      data, W, batch, precision, official["jax"].nn.relu, 1e-3, normalize_data=True
    ),
  }
  entries: dict[str, np.ndarray] = {}
  for kernel, creator in creators.items():
    for mask in ("full", "causal"):
      rng = np.random.default_rng(0)

      def run(inputs, creator=creator, mask=mask):
        W = SimpleNamespace(get_2d_array=lambda: inputs["W"])
        attention = official["FastAttentionviaLowRankDecomposition"](
          lambda key: W, creator, True, 1e-6, False, mask == "causal"
        )
        return (attention.dot_product_attention(inputs["q"], inputs["k"], inputs["v"]),)

      inputs = tokens(rng, B, T, H, D // H) | {"W": rng.standard_normal((FEATURES, D // H))}
      entries |= under(f"{kernel} {mask}", with_jax_gradients(run, inputs, rng))
  return entries


def bigbird(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs sparse attention; the blocks that it would draw are chosen here."""
  rng, heads = np.random.default_rng(0), iter(())

  def chosen(*_, **__):
    nonlocal heads
    return next(heads)

  official["get_block_rand_mask"] = chosen
  run_on = partial(official["sparse_dot_product_attention"], connectivity_seed=0, block_size=BLOCK, num_rand_blocks=1)

  def run(inputs):
    nonlocal heads
    heads = iter(CHOSEN)
    return (run_on(inputs["q"], inputs["k"], inputs["v"]),)

  return with_jax_gradients(run, tokens(rng, B, T, H, D // H), rng)


RECIPES = {
  "lra_bigbird": Recipe(
    REPOSITORY,
    {
      f"{MODELS}/bigbird/bigbird_attention.py": (
        *("create_band_mask_from_inputs", "create_rand_mask_from_inputs", "gather_1", "gather_2"),
        *("band_start_block_rand_multi_attention_pad", "sparse_dot_product_attention"),
      )
    },
    JAX,
    bigbird,
  ),
  "lra_linear_transformer": Recipe(
    REPOSITORY,
    {f"{MODELS}/linear_transformer/linear_attention.py": ("elu_feature_map", "linear_attention")},
    JAX + "from jax import nn\n",
    linear_transformer,
  ),
  "lra_performer": Recipe(
    REPOSITORY,
    {
      f"{MODELS}/performer/performer_attention.py": (
        *("nonnegative_softmax_kernel_feature_creator", "generalized_kernel_feature_creator"),
        *("FastAttention", "_numerator", "_denominator", "FastAttentionviaLowRankDecomposition", "_invert_perm"),
      )
    },
    JAX + "from jax import random\nclass gin:\n  configurable = staticmethod(lambda cls: cls)\n",
    performer,
  ),
}
