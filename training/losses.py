"""Losses and metrics as sums with weights, so that any number of batches adds up to exact averages."""

import math
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mistake import Mistake

# what is averaged -> (weighted sum, sum of weights)
Sums = dict[str, tuple[Array, Array]]


def cross_entropy(
  logits: Float[Array, "*b v"], targets: Int[Array, "*b"], weights: Float[Array, "*b"]
) -> dict[str, tuple[Float[Array, ""], Float[Array, ""]]]:
  """loss = Σ w·(−log softmax(logits)[target]) and accuracy = Σ w·[argmax = target], each with Σ w; in float32.

  A place of weight 0 reaches neither values nor gradients, whatever its logits are.
  """
  weights = weights.astype(jnp.float32)
  logits = jnp.where(weights[..., None] > 0, logits.astype(jnp.float32), 0.0)
  nats = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
  total = weights.sum()
  return {"loss": ((weights * nats).sum(), total), "accuracy": ((weights * hits).sum(), total)}


LOSSES: dict[str, Callable[..., Sums]] = {"cross_entropy": cross_entropy}
# computed from averages, so they too are exact over a whole set
DERIVED: dict[str, tuple[str, Callable[[float], float]]] = {
  "bits_per_byte": ("loss", lambda nats: nats / math.log(2)),
  "bits_per_token": ("loss", lambda nats: nats / math.log(2)),
  "error": ("accuracy", lambda right: 1 - right),
  "perplexity": ("loss", lambda nats: math.exp(min(nats, 700.0))),
}
HIGHER_IS_BETTER = ("accuracy",)


def get(name: str) -> Callable[..., Sums]:
  """The loss of that name.

  Raises:
    ValueError: there is none.
  """
  if name not in LOSSES:
    raise Mistake(f"the task's loss is {name!r}; training/losses.py has {', '.join(LOSSES)}")
  return LOSSES[name]


def add(left: Mapping[str, tuple], right: Mapping[str, tuple]) -> dict[str, tuple]:
  """Sums of two batches together."""
  return jax.tree.map(lambda a, b: a + b, dict(left), dict(right))


def averages(sums: Mapping[str, tuple], metrics: Collection[str]) -> dict[str, float]:
  """The loss and the metrics a task asks for, as floats.

  Raises:
    ValueError: a metric that neither the loss nor DERIVED knows.
  """
  means = {name: float(total) / max(float(weight), 1e-30) for name, (total, weight) in sums.items()}
  values = {"loss": means["loss"]}
  for name in metrics:
    source, function = DERIVED.get(name, (name, float))
    if source not in means:
      raise Mistake(f"the task asks for metric {name!r}; there are {', '.join([*means, *DERIVED])}")
    values[name] = function(means[source])
  return values
