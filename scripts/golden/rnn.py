"""RNN, LSTM and GRU by PyTorch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import Recipe, drawn, under, with_parameters, with_torch_gradients

LAYERS = ("RNN", "LSTM", "GRU")


def layers(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs each layer from a state that is not empty."""
  del official
  import torch

  entries: dict[str, np.ndarray] = {}
  b, t, d = 2, 13, 4
  for kind in LAYERS:
    rng = np.random.default_rng(0)
    module = getattr(torch.nn, kind)(d, d, batch_first=True)
    states = ("h", "c") if kind == "LSTM" else ("h",)
    inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
    inputs |= {name: rng.standard_normal((1, b, d)) for name in states}

    def run(x, h, c=None, module=module, **parameters):
      y, last = with_parameters(module, parameters, lambda: module(x, h if c is None else (h, c)))
      return (y, last) if c is None else (y, *last)

    entries |= under(kind.lower(), with_torch_gradients(run, inputs, rng))
  return entries


RECIPES = {"rnn": Recipe("pytorch/pytorch", {}, "", layers, library="torch")}
