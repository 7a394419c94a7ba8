"""How the next token is drawn from the logits: pure functions of logits and keys."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mistake import Mistake

# float32's least and largest number
LEAST, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


class Sampler(NamedTuple):
  """The settings of a draw; made by `make_sampler`, which checks them. Hashable: a static argument of jitted loops."""

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0


def make_sampler(
  temperature: float | int = 1.0,
  top_k: int = 0,
  top_p: float | int = 1.0,
  min_p: float | int = 0.0,
  repetition_penalty: float | int = 1.0,
) -> Sampler:
  """Checks and collects the settings.

  Args:
    temperature: the logits are divided by it; 0 takes the largest.
    top_k: draw among the k largest only; 0 among all.
    top_p: draw among the largest whose probabilities first reach p together; 1 among all.
    min_p: draw among the tokens that are at least this fraction as likely as the likeliest; 0 among all.
    repetition_penalty: how much less likely a token of the context becomes; see `adjusted`. 1 changes nothing.
  Raises:
    ValueError: temperature negative or not finite, top_k negative, top_p outside (0, 1], min_p outside [0, 1],
      repetition_penalty not a finite number above 0.
  """
  finite = "a finite number"
  for name, value, fine, need in (
    ("temperature", temperature, 0 <= temperature < float("inf"), f"{finite} of at least 0 (0 takes the likeliest)"),
    ("top_k", top_k, 0 <= top_k < 2**31, "a number of at least 1, or 0 to draw among all tokens"),
    ("top_p", top_p, 0 < top_p <= 1, "a number above 0 and at most 1 (1 draws among all tokens)"),
    ("min_p", min_p, 0 <= min_p <= 1, "a number from 0 to 1 (0 draws among all tokens)"),
    (
      "repetition_penalty",
      repetition_penalty,
      0 < repetition_penalty < float("inf"),
      f"{finite} above 0 (1 is none, above 1 makes repetitions rarer)",
    ),
  ):
    if not fine:
      raise Mistake(f"sampling: {name}={value}; give {need}")
  return Sampler(_single(temperature), top_k, _single(top_p), _single(min_p), _single(repetition_penalty))


def _single(value: float | int) -> float:
  """Returns a number of at least 0 as one that float32 takes neither for 0, unless it is 0, nor for infinite."""
  return min(max(float(value), LEAST), MOST) if value else 0.0


def read_bias(pairs: Sequence[str]) -> dict[int, float]:
  """Returns the biases that a command line or a config writes as "TOKEN=VALUE"; "10=-inf" forbids token 10.

  Raises:
    ValueError: one is no number of a token and a value, or a token comes twice.
  """
  bias: dict[int, float] = {}
  for pair in pairs:
    token, _, value = pair.partition("=") if isinstance(pair, str) else ("", "", "")
    try:
      number, added = int(token), float(value)
    except ValueError:
      example = "write TOKEN=VALUE, e.g. '10=-inf', which forbids token 10"
      raise Mistake(f"generate: logit_bias has {pair!r}; {example}") from None
    if number in bias:
      raise Mistake(f"generate: logit_bias has token {number} twice; leave one out")
    bias[number] = added
  return bias


def make_bias(logit_bias: Mapping[int, float | int] | None, vocab: int) -> Float[np.ndarray, "v"] | None:
  """Returns what is added to the logits, as an array over the vocabulary; None where nothing is.

  Args:
    logit_bias: token -> its bias; -inf forbids the token.
  Raises:
    ValueError: a token is outside the vocabulary, or a bias is NaN or inf.
  """
  if not logit_bias:
    return None
  bias = np.zeros(vocab, np.float32)
  for token, value in logit_bias.items():
    if not isinstance(token, int | np.integer) or not 0 <= token < vocab:
      raise Mistake(f"sampling: logit_bias names token {token!r}; the model's tokens are 0 … {vocab - 1}")
    if not value <= MOST:
      raise Mistake(f"sampling: logit_bias[{token}]={value}; give a finite number, or -inf to forbid the token")
    bias[token] = value
  if np.isneginf(bias).all():
    raise Mistake("sampling: logit_bias forbids every token of the vocabulary; leave at least one")
  return bias


def adjusted(
  logits: Float[Array, "*b v"], seen: Bool[Array, "*b v"], bias: Float[Array, "v"] | None, sampler: Sampler
) -> Float[Array, "*b v"]:
  """Returns logits with the penalty for repetitions and the bias, of which greedy decoding takes the largest.

  The logit l of a token that the context has becomes l / penalty if l > 0, else l · penalty. Source: Keskar et al.
  2019, arXiv:1909.05858, sec. 4.1; for negative logits, `transformers`.
  """
  penalty = sampler.repetition_penalty
  if penalty != 1:
    logits = jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
  return logits if bias is None else logits + bias


def filtered(logits: Float[Array, "*b v"], sampler: Sampler) -> Float[Array, "*b v"]:
  """Returns logits at the sampler's temperature (above 0 here), -inf for the tokens it leaves out.

  First top_k, then top_p of what is left: the smallest set of likeliest tokens that holds probability p ("nucleus",
  Holtzman et al. 2020, arXiv:1904.09751). A token is in that set if those before it hold less than p, so the likeliest
  always is. Then min_p (Nguyen et al. 2024, arXiv:2407.01082). Tokens that tie with the last one kept are kept too.
  """
  assert sampler.temperature > 0, "temperature 0 takes the largest logit: there is nothing to filter"
  # the largest becomes 0, which no temperature makes infinite, unless it is so before
  largest = jnp.clip(jnp.max(logits, axis=-1, keepdims=True), -MOST, MOST)
  logits = (logits - largest) / sampler.temperature
  vocab = logits.shape[-1]
  k = min(sampler.top_k or vocab, vocab)
  least = jnp.full((*logits.shape[:-1], 1), -jnp.inf, logits.dtype)
  if sampler.min_p > 0:
    least = jnp.full_like(least, np.log(sampler.min_p))
  if k < vocab or sampler.top_p < 1:
    likeliest = jax.lax.top_k(logits, k)[0]
    probability = jax.nn.softmax(likeliest, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    # rounding may leave the last ones more than all of the probability before them
    inside = (before < sampler.top_p) | (sampler.top_p == 1)
    least = jnp.maximum(least, jnp.min(jnp.where(inside, likeliest, jnp.inf), axis=-1, keepdims=True))
  return jnp.where(logits >= least, logits, -jnp.inf)


def as_keys(rng: Any) -> Key[Array, "..."]:
  """Returns keys, also of those that `jax.random.PRNGKey` makes.

  Raises:
    ValueError: it is something else, such as a seed.
  """
  dtype = getattr(rng, "dtype", None)
  if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return rng
  if dtype == np.uint32 and rng.ndim:
    return jax.random.wrap_key_data(jnp.asarray(rng))
  raise Mistake(f"generate: rng={rng!r} is no key; give jax.random.key(0)")


def row_keys(rng: Key[Array, "..."] | None, rows: int) -> Key[Array, "b"]:
  """Returns one key for each row: those given, or made of one key and the number of the row; of key 0 if None.

  Raises:
    ValueError: there are keys, but not one for each row.
  """
  rng = as_keys(jax.random.key(0) if rng is None else rng)
  if rng.ndim == 0:
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(rows))
  if rng.shape != (rows,):
    raise Mistake(f"generate: rng has {rng.shape[0]} keys for {rows} rows; give one key, or one for each row")
  return rng


def sample(
  keys: Key[Array, "b"], logits: Float[Array, "b v"], position: Int[Array, "b"], sampler: Sampler
) -> Int[Array, "b"]:
  """Draws one token a row; -1 where a row's logits are not numbers.

  The key of a draw follows from the row's key and the position, so that the same text comes out however the loop around
  it is cut into calls, and whatever other rows there are.
  """
  if sampler.temperature == 0:
    token = jnp.argmax(logits, axis=-1)
  else:
    step_keys = jax.vmap(jax.random.fold_in)(keys, position)
    token = jax.vmap(jax.random.categorical)(step_keys, filtered(logits, sampler))
  return jnp.where(jnp.isnan(logits).any(-1), -1, token).astype(jnp.int32)
