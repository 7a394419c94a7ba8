"""`neural_memory` chunk by chunk, as products of matrices: the weights after each token are never formed.

All gradients of a chunk are taken at the weights it began with, so they are outer products z_j delta_j^T that are known
at once, of what enters a layer and of the gradient of the loss in what leaves it. Momentum and decay are linear:

  M_t = keep_1..t M_0 + f_t S_0 - sum_{j<=t} G_tj z_j delta_j^T,     S_t = eta_1..t S_0 - sum_{j<=t} H_tj z_j delta_j^T

with H_tj = eta_{j+1}..eta_t rate_j, K_ti = keep_{i+1}..keep_t, G = K H and f = K (eta_1..eta_i)_i. So M_t^T x needs the
products x . z_j only, as in linear attention. The backward pass keeps the state before every chunk and computes the
chunk again.

Packed documents start anywhere, and so do their chunks: with resets tokens are taken one after the other, and the state
is kept for every `BLOCK`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import chunks, decays, inputs
from kernels.neural_memory import reference

# Tokens between two states that the backward pass keeps, with resets.
BLOCK = 64


def neural_memory(q, k, v, rate, log_eta, log_keep, initial, memory, chunk, bounded, valid, reset):
  """Computes the op by chunks, or token by token where documents are packed; see `reference`."""
  t = v.shape[1]
  if reset is not None or t == 1:
    return _by_token((q, k, v, rate, log_eta, log_keep, valid, reset), initial, memory, chunk, bounded)
  start, weights, momentum, length = memory
  starts = (length == 0) & valid[:, 0]
  start, weights, momentum = (
    tuple(inputs.where(starts, new, old) for new, old in zip(layers, olds))
    for layers, olds in ((initial, start), (initial, weights), (tuple(map(jnp.zeros_like, initial)), momentum))
  )
  # token i stands in slot offset + i, so that all rows have their chunks at the same slots
  offset = length % chunk
  count = -(-(t + chunk - 1) // chunk)
  index = jnp.arange(count * chunk) - offset[:, None]
  inside = (index >= 0) & (index < t)

  def lay(z):
    z = jnp.take_along_axis(z, jax.lax.expand_dims(jnp.clip(index, 0, t - 1), range(2, z.ndim)), axis=1)
    z = inputs.where(inside, z, jnp.zeros((), z.dtype))
    return jnp.moveaxis(z.reshape(z.shape[0], count, chunk, *z.shape[2:]), 1, 0)

  tokens = tuple(map(lay, (q, k, v, rate, log_eta, log_keep, valid)))
  (start, weights, momentum), y = jax.lax.scan(
    jax.checkpoint(functools.partial(_chunk, bounded), prevent_cse=False), (start, weights, momentum), tokens
  )
  y = jnp.moveaxis(y, 0, 1).reshape(y.shape[1], count * chunk, *y.shape[3:])
  y = jnp.take_along_axis(y, (offset[:, None] + jnp.arange(t))[..., None, None], axis=1)
  return y, (start, weights, momentum, length + valid.sum(1, dtype=length.dtype))


def _by_token(tokens, initial, memory, chunk, bounded):
  """Runs `reference`, keeping a state for every few tokens."""
  *tokens, valid, reset = tokens
  tokens = (*tokens, valid, jnp.zeros_like(valid) if reset is None else reset)
  step = jax.vmap(functools.partial(reference.step, initial, chunk, bounded))
  block = jax.checkpoint(lambda memory, tokens: jax.lax.scan(step, memory, tokens), prevent_cse=False)
  memory, y = jax.lax.scan(block, tuple(memory), jax.tree.map(lambda z: chunks.split(z, BLOCK), tokens))
  return chunks.join(y, valid.shape[1]), memory


def _chunk(bounded, memory, tokens):
  """Takes one chunk of tokens "b c h …"; those in the padding have rate 0 and decays 1, and add no momentum."""
  start, weights, momentum = memory
  q, k, v, rate, log_eta, log_keep = (jnp.moveaxis(z, 1, 2) for z in tokens[:-1])
  entered, deltas = _gradients(start, k, v)
  if bounded:
    squares = lambda z: jnp.square(z).sum(-1)
    in_weights = sum(squares(z) * squares(delta) for z, delta in zip(entered, deltas))
    rate = reference.bounded_rate(rate, log_eta, in_weights, squares(deltas[-1]), k.shape[2])
  eta, keep = _products(log_eta), _products(log_keep) * tokens[-1][:, None, None]
  first = lambda log: decays.factors(log[..., None]).enter
  H = eta * rate[..., None, :]
  G, from_weights = decays.einsum("bhti,bhij->bhtj", keep, H), first(log_keep)
  from_momentum = decays.einsum("bhti,bhix->bhtx", keep, first(log_eta))

  last = lambda z: z[:, :, -1:]
  x, after, moved = q, [], []
  for W, S, z, delta in zip(weights, momentum, entered, deltas):
    x = x if not after else jax.nn.silu(x)
    scores = G * decays.einsum("bhti,bhji->bhtj", x, z)
    y = from_weights * decays.einsum("bhti,bhio->bhto", x, W) + from_momentum * decays.einsum("bhti,bhio->bhto", x, S)
    x = y - decays.einsum("bhtj,bhjo->bhto", scores, delta)
    after.append(last(from_weights) * W + last(from_momentum) * S - _fed(G, z, delta))
    moved.append(last(first(log_eta)) * S - _fed(H, z, delta))
  ended = tokens[-1][:, -1, None, None, None]
  start = tuple(jnp.where(ended, new, old) for new, old in zip(after, start))
  return (start, tuple(after), tuple(moved)), jnp.moveaxis(x, 2, 1)


def _fed(
  weight: Float[Array, "b h c c"], z: Float[Array, "b h c i"], delta: Float[Array, "b h c o"]
) -> Float[Array, "b h i o"]:
  """Adds up the gradients of all tokens, with the weights they have after the last one."""
  return decays.einsum("bhji,bhjo->bhio", z * weight[:, :, -1, :, None], delta)


def _products(log: Float[Array, "b h c"]) -> Float[Array, "b h c c"]:
  """Returns exp(log_{i+1} + .. + log_t) for every two tokens i <= t, 0 for others."""
  one = jnp.ones((*log.shape[:2], 1, log.shape[2], 1), log.dtype)
  return decays.scores(one, one, log[..., None])[:, :, 0, 0]


def _gradients(weights, k: Float[Array, "b h c k"], v: Float[Array, "b h c p"]):
  """Returns the input of each layer, and the gradient of each token's loss in its output."""

  def loss(added):
    x, entered = k, []
    for W, more in zip(weights, added):
      entered.append(x if not entered else jax.nn.silu(x))
      x = decays.einsum("bhci,bhio->bhco", entered[-1], W) + more
    return jnp.square(x - v).sum(), entered

  nothing = [jnp.zeros((*k.shape[:3], W.shape[-1]), k.dtype) for W in weights]
  deltas, entered = jax.grad(loss, has_aux=True)(nothing)
  return entered, deltas
