"""Cross entropy as sums over tokens, from logits, or from chunks of logits that are never all in memory at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import sequence_parallel


def cross_entropy(
  logits: Float[Array, "*b v"], targets: Int[Array, "*b"], weights: Float[Array, "*b"]
) -> dict[str, tuple[Float[Array, ""], Float[Array, ""]]]:
  """loss = Σ w·(−log softmax(logits)[target]) and accuracy = Σ w·[argmax = target], each with Σ w; in float32.

  A place of weight 0 reaches neither values nor gradients, whatever its logits are.
  """
  nats, hits, _ = _sums(logits, targets, weights.astype(jnp.float32))
  total = weights.astype(jnp.float32).sum()
  return {"loss": (nats, total), "accuracy": (hits, total)}


def by_chunks(
  logits: Callable[[Float[Array, "b c d"]], Float[Array, "b c v"]],
  y: Float[Array, "b t d"],
  targets: Int[Array, "b t"],
  weights: Float[Array, "b t"],
  *,
  chunk: int,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
  """Σ w·nats, Σ w·hits, Σ w·lse² and Σ w over tokens, with the logits of at most about `chunk` tokens at a time.

  lse is the log of the sum of the exponentials of a token's logits. The backward pass makes the logits again. Rows are
  cut along time, so that a batch stays spread over its devices, and each of these cuts its own part of the time.
  """
  weights = weights.astype(jnp.float32)
  total = weights.sum()
  y, targets, weights = map(sequence_parallel.apart, (y, targets, weights))
  b, t, _ = y.shape
  size = max(1, chunk // max(b, 1))
  if size >= t:
    return *_sums(logits(y), targets, weights), total
  cut = lambda z: jnp.moveaxis(
    jnp.pad(z, ((0, 0), (0, -t % size)) + ((0, 0),) * (z.ndim - 2)).reshape(b, -(-t // size), size, *z.shape[2:]), 1, 0
  )

  @jax.checkpoint
  def one(sums, part):
    y, targets, weights = part
    return tuple(map(jnp.add, sums, _sums(logits(y), targets, weights))), None

  zero = jnp.zeros((), jnp.float32)
  sums, _ = jax.lax.scan(one, (zero, zero, zero), (cut(y), cut(targets), cut(weights)))
  return *sums, total


def _sums(
  logits: Float[Array, "*b v"], targets: Int[Array, "*b"], weights: Float[Array, "*b"]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
  logits = jnp.where(weights[..., None] > 0, logits.astype(jnp.float32), 0.0)
  lse = jax.nn.logsumexp(logits, axis=-1)
  nats = lse - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
  return (weights * nats).sum(), (weights * hits).sum(), (weights * jnp.square(lse)).sum()
