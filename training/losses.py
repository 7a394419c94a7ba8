"""Metrics from sums with weights, so that any number of batches adds up to exact averages. Heads make the sums."""

import math
from collections.abc import Callable, Collection, Mapping

import jax
from jaxtyping import Array

from mistake import Mistake

# name of a loss or a metric -> (weighted sum, sum of weights)
Sums = dict[str, tuple[Array, Array]]


# computed from averages, so they too are exact over a whole set
DERIVED: dict[str, tuple[str, Callable[[float], float]]] = {
  "bits_per_byte": ("loss", lambda nats: nats / math.log(2)),
  "bits_per_token": ("loss", lambda nats: nats / math.log(2)),
  "error": ("accuracy", lambda right: 1 - right),
  "rmse": ("mse", math.sqrt),
  "perplexity": ("loss", lambda nats: math.exp(min(nats, 700.0))),
}
HIGHER_IS_BETTER = ("accuracy",)


def add(left: Mapping[str, tuple], right: Mapping[str, tuple]) -> dict[str, tuple]:
  """Adds the sums of two batches."""
  return jax.tree.map(lambda a, b: a + b, dict(left), dict(right))


def averages(sums: Mapping[str, tuple], metrics: Collection[str]) -> dict[str, float]:
  """Returns the loss and the metrics that a task asks for, as floats.

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
