"""How evenly a model uses the experts of its mixtures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.run import Run

# what a mixture sows for each call: the share of choices that fall on each expert, "e"
SOWN = "share"


def shares(run: Run, inputs: np.ndarray) -> dict[str, np.ndarray]:
  """Returns for each mixture of a run's model the share of choices that fall on each expert; empty without mixtures."""
  with run.on_mesh():
    _, sown = run.model.apply(run.variables, inputs, mutable=["intermediates"])
  return _by_layer(sown.get("intermediates", {}), "")


def _by_layer(node: Any, path: str) -> dict[str, np.ndarray]:
  if not isinstance(node, Mapping):
    return {}
  by_layer: dict[str, np.ndarray] = {}
  for name, value in node.items():
    if name == SOWN:
      # letters that a loop goes over have a leading axis of rounds
      stacked = np.asarray(value[0])
      rows = stacked.reshape(-1, stacked.shape[-1])
      by_layer |= {path if len(rows) == 1 else f"{path} {i}": row for i, row in enumerate(rows)}
    else:
      by_layer |= _by_layer(value, f"{path}/{name}" if path else name)
  return by_layer


def draw(layers: Mapping[str, np.ndarray]) -> Figure:
  """Draws a line of bars for each mixture, its experts sorted by use, with a rule where all are used alike."""
  figure = Figure(figsize=(7, 1 + 1.2 * len(layers)), layout="constrained")
  panels = figure.subplots(len(layers), 1, squeeze=False, sharey=True)[:, 0]
  for axes, (name, share) in zip(panels, layers.items()):
    axes.bar(range(len(share)), 100 * np.sort(share)[::-1])
    axes.axhline(100 / len(share), color="k", linestyle=":", linewidth=1)
    axes.set_xticks([])
    axes.set_ylabel("% of choices")
    axes.set_title(f"{name}: {100 * share.min():.1f} to {100 * share.max():.1f} %", fontsize=8)
  panels[-1].set_xlabel(f"{len(share)} experts, the most used first")
  return figure
