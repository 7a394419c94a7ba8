"""The ops over time with small arrays, from which the tests of all ops draw."""

from typing import Any

import numpy as np

from scripts.benchmarks import ops

SMALL = dict(b=2, h=4, g=2, k=3, p=5, e=4, n=3, w=4, v=3)


class Op(ops.Op):
  """An op of the table of all, with numbers for its arguments."""

  def draw(self, t: int, dtype: Any = "float32", **sizes: int) -> dict[str, np.ndarray]:
    """Arrays by argument; of decays and step sizes, numbers that they can be."""
    rng = np.random.default_rng(t)
    shapes = self.shapes({**SMALL, "t": t, **sizes}, dtype)
    arrays = {name: DRAWS.get(name, _normal)(rng, z.shape) for name, z in shapes.items()}
    if "w" in arrays:
      # what a delta rule removes: at most twice what a key of length 1 finds
      arrays["w"] /= np.linalg.norm(arrays["w"], axis=-1, keepdims=True)
      arrays["k"] = arrays["w"] * rng.uniform(0, 2, (*arrays["w"].shape[:-1], 1))
      if "u" in arrays:
        arrays["u"] = -rng.uniform(size=arrays["w"].shape) * arrays["w"]
    return {name: arrays[name].astype(z.dtype) for name, z in shapes.items()}

  def forgetting(self, **sizes: int) -> dict[str, np.ndarray]:
    """Sixty tokens of weak decays, e^-170 at every fourth, and 0 at one of them.

    Where a head has decays by channel, one channel is cleared alone before, and another keeps everything.
    """
    arrays = self.draw(60, **sizes)
    strong = (np.arange(60) % 4 == 2).reshape(60, *[1] * (arrays["log_a"].ndim - 2))
    log_a = arrays["log_a"] = np.where(strong, np.float32(-170), arrays["log_a"] / 50)
    log_a[:, 41] = -np.inf
    if log_a.ndim == 4 and log_a.shape[-1] > 1:
      log_a[:, 29, :, 1], log_a[..., 2] = -np.inf, 0
    if "w" in arrays and "u" not in arrays:
      # what a delta rule removes is removed from what is left
      arrays["w"] = np.exp(log_a) * arrays["w"]
    return arrays


def _normal(rng, shape):
  return rng.standard_normal(shape)


# Decays from nearly none to 1e-2 a token.
DRAWS = {
  "log_a": lambda rng, shape: -(10.0 ** rng.uniform(-3, 0.7, shape)),
  "a": lambda rng, shape: rng.uniform(0.5, 1, shape),
  "a_complex": lambda rng, shape: rng.uniform(0.5, 1, shape) * np.exp(1j * rng.uniform(-3, 3, shape)),
  "dt": lambda rng, shape: rng.uniform(0.01, 0.5, shape),
  "dt_before_softplus": lambda rng, shape: np.log(np.expm1(rng.uniform(0.01, 0.5, shape))),
  "A": lambda rng, shape: -rng.uniform(0.5, 4, shape),
  "A_complex": lambda rng, shape: -rng.uniform(0.5, 4, shape) + 1j * rng.uniform(-9, 9, shape),
  "h_complex": lambda rng, shape: _normal(rng, shape) + 1j * _normal(rng, shape),
  "r": lambda rng, shape: 4 * _normal(rng, shape),
  "a_param": lambda rng, shape: rng.uniform(-9, 1, shape),
}

OPS = {name: Op(*op) for name, op in ops.OPS.items()}
# Ops with decays whose logarithms are given: how near implementations are to the reference where decays are strong.
DECAYING = {name: 4e-6 if "w" in op.axes else 2e-6 for name, op in OPS.items() if "log_a" in op.axes}
