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

  found: dict[str, np.ndarray] = {}
  b, t, d = 2, 13, 4
  for kind in LAYERS:
    rng = np.random.default_rng(0)
    module = getattr(torch.nn, kind)(d, d, batch_first=True)
    states = ("h", "c") if kind == "LSTM" else ("h",)
    given = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
    given |= {name: rng.standard_normal((1, b, d)) for name in states}

    def run(x, h, c=None, module=module, **parameters):
      y, last = with_parameters(module, parameters, lambda: module(x, h if c is None else (h, c)))
      return (y, last) if c is None else (y, *last)

    found |= under(kind.lower(), with_torch_gradients(run, given, rng))
  return found


RECIPES = {"rnn": Recipe("pytorch/pytorch", {}, "", layers, library="torch")}
