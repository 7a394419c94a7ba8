"""How the next token is drawn from the logits: pure functions of logits and a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mistake import Mistake


class Sampler(NamedTuple):
  """The three usual numbers; made by `make_sampler`, which checks them. Hashable: a static argument of jitted loops."""

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0


def make_sampler(temperature: float | int = 1.0, top_k: int = 0, top_p: float | int = 1.0) -> Sampler:
  """Checks and collects the settings.

  Args:
    temperature: the logits are divided by it; 0 takes the largest.
    top_k: draw among the k largest only; 0 among all.
    top_p: draw among the largest whose probabilities first reach p together; 1 among all.
  Raises:
    ValueError: temperature negative or not finite, top_k negative, top_p outside (0, 1].
  """
  if not 0 <= temperature < float("inf"):
    raise Mistake(f"sampling: temperature={temperature}; give a finite number of at least 0 (0 takes the likeliest)")
  if top_k < 0:
    raise Mistake(f"sampling: top_k={top_k}; give a number of at least 1, or 0 to draw among all tokens")
  if not 0 < top_p <= 1:
    raise Mistake(f"sampling: top_p={top_p}; give a number above 0 and at most 1 (1 draws among all tokens)")
  return Sampler(float(temperature), top_k, float(top_p))


def filtered(logits: Float[Array, "*b v"], sampler: Sampler) -> Float[Array, "*b v"]:
  """Logits at the sampler's temperature (above 0 here), -inf for the tokens it leaves out.

  First top_k, then top_p of what is left: the smallest set of likeliest tokens that holds probability p ("nucleus",
  Holtzman et al. 2020, arXiv:1904.09751). A token is in that set if those before it hold less than p, so the likeliest
  always is. Tokens that tie with the last one kept are kept too.
  """
  assert sampler.temperature > 0, "temperature 0 takes the largest logit: there is nothing to filter"
  logits = logits / sampler.temperature
  vocab = logits.shape[-1]
  k = min(sampler.top_k or vocab, vocab)
  if k == vocab and sampler.top_p == 1:
    return logits
  likeliest = jax.lax.top_k(logits, k)[0]
  probability = jax.nn.softmax(likeliest, axis=-1)
  before = jnp.cumsum(probability, axis=-1) - probability
  # rounding may leave the last ones more than all of the probability before them
  kept = (before < sampler.top_p) | (sampler.top_p == 1)
  least = jnp.min(jnp.where(kept, likeliest, jnp.inf), axis=-1, keepdims=True)
  return jnp.where(logits >= least, logits, -jnp.inf)


def sample(
  rng: Key[Array, ""], logits: Float[Array, "b v"], position: Int[Array, "b"], sampler: Sampler
) -> Int[Array, "b"]:
  """Draws one token a row; -1 where a row's logits are not numbers.

  The key of a draw follows from `rng`, the row and the position, so the same text comes out however the loop around it
  is cut into calls.
  """
  if sampler.temperature == 0:
    token = jnp.argmax(logits, axis=-1)
  else:
    key = lambda row, at: jax.random.fold_in(jax.random.fold_in(rng, row), at)
    keys = jax.vmap(key)(jnp.arange(logits.shape[0]), position)
    token = jax.vmap(jax.random.categorical)(keys, filtered(logits, sampler))
  return jnp.where(jnp.isnan(logits).any(-1), -1, token).astype(jnp.int32)
