"""Metrics from sums with weights, so that any number of batches adds up to exact averages. Heads make the sums."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from mistake import Mistake

# name of a loss or a metric -> (weighted sum, which may be an array, and sum of weights)
Sums = dict[str, tuple[Array, Array]]


def macro_f1(confusion: np.ndarray) -> float:
  """F1 = 2 tp / (2 tp + fp + fn) of each class that occurs, as label or as prediction, averaged; "label prediction"."""
  right, found = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
  return float(np.mean(2 * right[found > 0] / found[found > 0])) if found.any() else math.nan


def matthews(confusion: np.ndarray) -> float:
  """Returns Matthews' correlation of two classes or more (Gorodkin 2004); 0 if all labels or predictions are one."""
  share = confusion / max(confusion.sum(), 1e-30)
  labels, predictions = share.sum(axis=1), share.sum(axis=0)
  spread = math.sqrt((1 - labels @ labels) * (1 - predictions @ predictions))
  return float((np.trace(share) - labels @ predictions) / spread) if spread > 1e-12 else 0.0


def area_under_curve(scores: np.ndarray) -> float:
  """Returns the probability that a row of class 1 scores above one of class 0, ties half, from "class bins"."""
  low, high = scores
  if not (low.sum() and high.sum()):
    return math.nan
  below = np.cumsum(low) - low
  return float((high * (below + low / 2)).sum() / (low.sum() * high.sum()))


def determination(moments: np.ndarray) -> float:
  """R² = 1 - mean (y - ŷ)² / var y, averaged over the numbers of an answer, from means of (y, (y - m)², (y - ŷ)²)."""
  _, variance, error = moments
  return float(np.mean(1 - error / np.maximum(variance, 1e-30)))


# computed from averages, so they too are exact over a whole set
DERIVED: dict[str, tuple[str, Callable[[Any], float]]] = {
  "f1": ("confusion", macro_f1),
  "mcc": ("confusion", matthews),
  "auc": ("scores", area_under_curve),
  "r2": ("moments", determination),
  "bits_per_byte": ("loss", lambda nats: nats / math.log(2)),
  "bits_per_token": ("loss", lambda nats: nats / math.log(2)),
  "error": ("accuracy", lambda right: 1 - right),
  "rmse": ("mse", math.sqrt),
  "perplexity": ("loss", lambda nats: math.exp(min(nats, 700.0))),
}
HIGHER_IS_BETTER = ("accuracy", "f1", "mcc", "auc", "r2")


def add(left: Mapping[str, tuple], right: Mapping[str, tuple]) -> dict[str, tuple]:
  """Adds the sums of two batches; squares of "moments", about the mean of each, become those about the mean of both."""
  total = jax.tree.map(lambda a, b: a + b, dict(left), dict(right))
  if "moments" in total:
    (rows, weight), (a, n), (b, m) = total["moments"], left["moments"], right["moments"]
    # a batch may be empty; squares about 0 would leave no digits of the variance where the mean is large
    between = (a[0] / (n + 1e-30) - b[0] / (m + 1e-30)) ** 2 * (n * m / (weight + 1e-30))
    total["moments"] = rows + np.array([[0], [1], [0]], np.float32) * between, weight
  return total


def bytes_per_target(task: Any, name: str) -> float:
  """Returns how many bytes of text a target of a set stands for; a task whose tokens are no bytes says it."""
  return getattr(task, "bytes_per_target", {}).get(name, 1.0)


def averages(sums: Mapping[str, tuple], metrics: Collection[str], bytes_per_target: float = 1.0) -> dict[str, float]:
  """Returns the loss and the metrics that a task asks for, as floats.

  Args:
    bytes_per_target: what a predicted token stands for on the average, where it is no byte.
  Raises:
    ValueError: a metric that neither the loss nor DERIVED knows.
  """
  means = {name: np.asarray(total, float) / max(float(weight), 1e-30) for name, (total, weight) in sums.items()}
  values = {"loss": float(means["loss"])}
  for name in metrics:
    source, function = DERIVED.get(name, (name, float))
    if source not in means:
      raise Mistake(f"the task asks for metric {name!r}; there are {', '.join([*means, *DERIVED])}")
    values[name] = float(function(means[source])) / (bytes_per_target if name == "bits_per_byte" else 1.0)
  return values
