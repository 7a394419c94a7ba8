"""Computes the objective of training: a model's mean loss plus the losses that its mixers and its head sow."""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from hybrids.head import Sums


def measure(
  model: nn.Module,
  variables: Mapping[str, Any],
  batch: Mapping[str, Array],
  state: Any = None,
  *,
  mutable: Collection[str] = (),
  **kwargs: Any,
) -> tuple[Array, Sums, dict[str, Any], Any]:
  """Returns the objective of a batch: its mean loss, plus the weighted losses that the mixers sow under "losses".

  Args:
    state: where the model goes on, if it does.
    mutable: collections that the call may change.
    kwargs: `rngs`, as for `apply`.
  Returns:
    The objective, sums with "loss" and each "losses/NAME" among them, the changed collections, and the next state.
  """
  method, arguments = ("loss", (batch,)) if state is None else ("resume_loss", (batch, state))
  out, changed = model.apply(variables, *arguments, method=method, mutable=[*mutable, "losses"], **kwargs)
  sums, state = (out, None) if state is None else out
  changed = dict(changed)
  total, weight = sums["loss"]
  value, sown = total / jnp.maximum(weight, 1e-30), changed.pop("losses", {})
  by_name: dict[str, Array] = {}
  for path, leaf in jax.tree.leaves_with_path(sown):
    name = next(key.key for key in reversed(path) if isinstance(key, jax.tree_util.DictKey))
    by_name[name] = by_name.get(name, 0.0) + jnp.sum(leaf)
  # as the mean loss, they count by the weight of their batch where several are logged or accumulated
  extra = {f"losses/{name}": (loss * weight, weight) for name, loss in sorted(by_name.items())}
  return value + sum(by_name.values()), {**sums, **extra}, changed, state
