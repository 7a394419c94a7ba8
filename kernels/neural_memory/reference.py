"""The definition of `neural_memory`: one token after the other, with JAX's gradient."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def neural_memory(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  rate: Float[Array, "b t h"],
  log_eta: Float[Array, "b t h"],
  log_keep: Float[Array, "b t h"],
  initial: tuple[Float[Array, "h ..."], ...],
  memory: tuple,
  chunk: int,
  there: Bool[Array, "b t"],
  reset: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t h p"], tuple]:
  """See the op; `there` is False past a row's length."""
  reset = jnp.zeros(there.shape, bool) if reset is None else reset
  row = lambda memory, tokens: jax.lax.scan(functools.partial(step, initial, chunk), memory, tokens)
  memory, y = jax.vmap(row)(tuple(memory), (q, k, v, rate, log_eta, log_keep, there, reset))
  return y, memory


def step(initial: tuple[Float[Array, "h ..."], ...], chunk: int, before: tuple, token: tuple):
  """One token of one row: the memory after it, and y."""
  q, k, v, rate, log_eta, log_keep, there, reset = token
  start, weights, momentum, length = before
  fresh = reset | (length == 0)
  start, weights = (pick(fresh, initial, old) for old in (start, weights))
  momentum = pick(fresh, jax.tree.map(jnp.zeros_like, momentum), momentum)
  length = jnp.where(fresh, 0, length) + 1
  gradient = jax.grad(loss)(start, k, v)
  by_head = lambda z: z[:, None, None]
  momentum = jax.tree.map(lambda s, g: by_head(jnp.exp(log_eta)) * s - by_head(rate) * g, momentum, gradient)
  weights = jax.tree.map(lambda m, s: by_head(jnp.exp(log_keep)) * m + s, weights, momentum)
  start = pick(length % chunk == 0, weights, start)
  return pick(there, (start, weights, momentum, length), before), apply(weights, q)


def apply(weights: tuple[Float[Array, "h ..."], ...], x: Float[Array, "h i"]) -> Float[Array, "h o"]:
  """M(x) of each head."""
  for layer, W in enumerate(weights):
    x = jnp.einsum("hi,hio->ho", jax.nn.silu(x) if layer else x, W)
  return x


def loss(weights: tuple[Float[Array, "h ..."], ...], k: Float[Array, "h k"], v: Float[Array, "h p"]):
  """|M(k) - v|^2, summed over heads, which do not share weights."""
  return jnp.square(apply(weights, k) - v).sum()


def pick(which: Bool[Array, ""], new, old):
  """One of two trees."""
  return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)
