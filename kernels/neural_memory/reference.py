"""The definition of `neural_memory`: one token after the other, with JAX's gradient."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def neural_memory(q, k, v, rate, log_eta, log_keep, initial, memory, chunk, bounded, valid, reset):
  """Computes the op as it is defined; `valid` is False in the padding."""
  reset = jnp.zeros_like(valid) if reset is None else reset
  row = lambda memory, tokens: jax.lax.scan(functools.partial(step, initial, chunk, bounded), memory, tokens)
  memory, y = jax.vmap(row)(tuple(memory), (q, k, v, rate, log_eta, log_keep, valid, reset))
  return y, memory


def step(initial: tuple[Float[Array, "h ..."], ...], chunk: int, bounded: bool, before: tuple, token: tuple):
  """Takes one token of one row: the memory after it, and y."""
  q, k, v, rate, log_eta, log_keep, valid, reset = token
  start, weights, momentum, length = before
  reset |= length == 0
  start, weights = (pick(reset, initial, old) for old in (start, weights))
  momentum = pick(reset, jax.tree.map(jnp.zeros_like, momentum), momentum)
  length = jnp.where(reset, 0, length) + 1
  gradient = jax.grad(loss)(start, k, v)
  if bounded:
    squares = jnp.stack([jnp.square(g).sum((1, 2)) for g in gradient]).sum(0)
    rate = bounded_rate(rate, log_eta, squares, jnp.square(2 * (apply(start, k) - v)).sum(1), chunk)
  by_head = lambda z: z[:, None, None]
  momentum = jax.tree.map(lambda s, g: by_head(jnp.exp(log_eta)) * s - by_head(rate) * g, momentum, gradient)
  weights = jax.tree.map(lambda m, s: by_head(jnp.exp(log_keep)) * m + s, weights, momentum)
  start = pick(length % chunk == 0, weights, start)
  return pick(valid, (start, weights, momentum, length), before), apply(weights, q)


def bounded_rate(
  rate: Float[Array, "*b"],
  log_eta: Float[Array, "*b"],
  in_weights: Float[Array, "*b"],
  in_output: Float[Array, "*b"],
  chunk: int,
) -> Float[Array, "*b"]:
  """Lowers a token's step to rate <= (1 - eta) / (2 chunk curvature), curvature = |grad_W loss|^2 / |grad_y loss|^2.

  The curvature is that of M(k) along the token's own step: |k|^2 for a linear memory. A step of 1 / (2 curvature) makes
  the error 0. All tokens of a chunk may be the same and step from the same weights, and momentum repeats each step
  1 / (1 - eta) times, so each takes that much less. The backward pass takes the curvature as a constant.

  Args:
    in_weights: |gradient of the loss in the weights|^2.
    in_output: |gradient of the loss in M(k)|^2.
  """
  curvature = jax.lax.stop_gradient(jnp.where(in_output > 0, in_weights / jnp.where(in_output > 0, in_output, 1), 0))
  left = -jnp.expm1(log_eta)
  return rate * left / jnp.maximum(jnp.maximum(2 * chunk * curvature * rate, left), jnp.finfo(rate.dtype).tiny)


def apply(weights: tuple[Float[Array, "h ..."], ...], x: Float[Array, "h i"]) -> Float[Array, "h o"]:
  """Returns M(x) of each head."""
  for layer, W in enumerate(weights):
    x = jnp.einsum("hi,hio->ho", jax.nn.silu(x) if layer else x, W)
  return x


def loss(weights: tuple[Float[Array, "h ..."], ...], k: Float[Array, "h k"], v: Float[Array, "h p"]):
  """Returns |M(k) - v|^2, summed over heads, which do not share weights."""
  return jnp.square(apply(weights, k) - v).sum()


def pick(which: Bool[Array, ""], new, old):
  """Chooses one of two trees."""
  return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)
