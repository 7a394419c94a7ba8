"""The ops over time and the axes of their arguments, from which the tests of all ops draw their arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels import delta_rule, gated_linear_attention, linear_scan, lti, rg_lru, selective_scan, short_conv, ssd

SMALL = dict(b=2, h=4, g=2, k=3, p=5, e=4, n=3, w=4, v=3, one=1)


class Op(NamedTuple):
  """One way to call an op: `run(*arrays, reset=, lengths=, impl=)` returns the outputs and the last state."""

  run: Callable[..., tuple[Any, Any]]
  impls: Mapping[str, Any]
  axes: Mapping[str, str]  # by argument, in order; "b t ..." are tokens
  state: str  # the argument that is the state before the first token

  def draw(self, t: int, dtype: Any = "float32", **sizes: int) -> dict[str, np.ndarray]:
    """Arrays by argument; of decays and step sizes, numbers that they can be."""
    rng = np.random.default_rng(t)
    sizes = {**SMALL, "t": t, **sizes}
    shapes = {name: tuple(sizes[axis] for axis in axes.split()) for name, axes in self.axes.items()}
    arrays = {name: DRAWS.get(name, _normal)(rng, shape) for name, shape in shapes.items()}
    if "w" in arrays:
      # what a delta rule removes: at most twice what a key of length 1 finds
      arrays["w"] /= np.linalg.norm(arrays["w"], axis=-1, keepdims=True)
      arrays["k"] = arrays["w"] * rng.uniform(0, 2, (*arrays["w"].shape[:-1], 1))
      if "u" in arrays:
        arrays["u"] = -rng.uniform(size=arrays["w"].shape) * arrays["w"]
    cast = lambda z: z.astype(np.result_type(dtype, np.complex64) if np.iscomplexobj(z) else dtype)
    return {name: cast(z) for name, z in arrays.items()}

  def tokens(self) -> list[str]:
    """The arguments that have a time axis."""
    return [name for name, axes in self.axes.items() if axes.startswith("b t")]


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


def _lti(u, x, a_complex, B, C, **where):
  """A system in chunks of at most 16 tokens."""
  A, c = 0.9 * a_complex, min(16, u.shape[1])
  powers = A[..., None] ** jnp.arange(c + 1)
  read, write = C[..., None] * powers, B[..., None] * powers
  K = jnp.sum(B[..., None] * read[..., :-1], axis=1).real
  system = lti.System(K, A, read[..., 1:].swapaxes(1, 2), write[..., -2::-1], powers[..., -1])
  return lti.lti(u, system, x, **where)


def _delta(q, k, v, w, S, log_a=None, u=None, **where):
  return delta_rule.delta_rule(q, k, v, w, S, u, log_a, **where)


def _gated(x, dt_before_softplus, A, B, C, h, D, z, **where):
  return selective_scan.selective_scan(x, dt_before_softplus, A, B, C, h, D, z, softplus=True, **where)


def _hold(x, dt, A_complex, B, C, h_complex, **where):
  return selective_scan.selective_scan(x, dt, A_complex, B + 0j, C + 0j, h_complex, disc="zoh", **where)


def _with_bias(x, kernel, taps, bias, **where):
  return short_conv.short_conv(x, kernel, taps, bias=bias, **where)


_scan = dict(B="b t g n", C="b t g n")
_heads = dict(v="b t h p", log_a="b t h", S="b h k p")
_rows = dict(q="b t h k", k="b t h k", v="b t h p")
OPS = {
  "linear_scan": Op(linear_scan.linear_scan, linear_scan.IMPLS, dict(a="b t n", x="b t n", h="b n"), "h"),
  "linear_scan, one complex decay": Op(
    linear_scan.linear_scan, linear_scan.IMPLS, dict(a_complex="n", x="b t n", h_complex="b n"), "h_complex"
  ),
  "selective_scan": Op(
    selective_scan.selective_scan, selective_scan.IMPLS, dict(x="b t e", dt="b t e", A="e n", **_scan, h="b e n"), "h"
  ),
  "selective_scan, gated": Op(
    _gated,
    selective_scan.IMPLS,
    dict(x="b t e", dt_before_softplus="b t e", A="e n", **_scan, h="b e n", D="e", z="b t e"),
    "h",
  ),
  "selective_scan, complex": Op(
    _hold, selective_scan.IMPLS, dict(x="b t e", dt="b t e", A_complex="e n", **_scan, h_complex="b e n"), "h_complex"
  ),
  "ssd": Op(ssd.ssd, ssd.IMPLS, dict(q="b t g k", k="b t g k", **_heads), "S"),
  "gated_linear_attention": Op(
    gated_linear_attention.gated_linear_attention,
    gated_linear_attention.IMPLS,
    dict(**_rows, log_a="b t h k", S="b h k p"),
    "S",
  ),
  "gated_linear_attention, bonus": Op(
    gated_linear_attention.gated_linear_attention,
    gated_linear_attention.IMPLS,
    dict(**_rows, log_a="b t h k", S="b h k p", u="h k"),
    "S",
  ),
  "delta_rule": Op(_delta, delta_rule.IMPLS, dict(**_rows, w="b t h k", S="b h k p"), "S"),
  "delta_rule, gated": Op(_delta, delta_rule.IMPLS, dict(**_rows, w="b t h k", S="b h k p", log_a="b t h one"), "S"),
  "delta_rule, general": Op(
    _delta, delta_rule.IMPLS, dict(**_rows, w="b t h k", S="b h k p", log_a="b t h k", u="b t h k"), "S"
  ),
  "lti": Op(_lti, lti.IMPLS, dict(u="b t e", x="b e n", a_complex="e n", B="e n", C="e n"), "x"),
  "rg_lru": Op(rg_lru.rg_lru, rg_lru.IMPLS, dict(u="b t e", r="b t e", i="b t e", a_param="e", h="b e"), "h"),
  "short_conv": Op(_with_bias, short_conv.IMPLS, dict(x="b t e", kernel="w e", taps="b v e", bias="e"), "taps"),
}
