"""The ops over time: the axes of their arguments, by name, and the sizes that published models have.

Benchmarks, the tests of all ops, and what lowers kernels for GPUs and TPUs take their cases from here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from kernels import delta_rule, gated_linear_attention, linear_scan, lstm, lti, rg_lru, selective_scan, short_conv, ssd


class Op(NamedTuple):
  """One way to call an op: `run(*arrays, reset=, lengths=, impl=)` returns the outputs and the last state."""

  run: Callable[..., tuple[Any, Any]]
  impls: Mapping[str, Any]
  axes: Mapping[str, str]  # by argument, in order; "b t ..." are tokens
  state: str  # the argument that is the state before the first token

  def tokens(self) -> list[str]:
    """Returns the arguments that have a time axis."""
    return [name for name, axes in self.axes.items() if axes.startswith("b t")]

  def shapes(self, sizes: Mapping[str, int], dtype: DTypeLike) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes by argument: states are float32 at least, and what is named complex is complex.

    Args:
      sizes: by axis.
    """
    least = lambda name: jnp.complex64 if "complex" in name else jnp.float32 if name == self.state else dtype
    shape = lambda axes: tuple({"one": 1, "pair": 2, "four": 4, **sizes}[axis] for axis in axes.split())
    return {
      name: jax.ShapeDtypeStruct(shape(axes), jnp.promote_types(dtype, least(name))) for name, axes in self.axes.items()
    }


def _lti(u, x, a_complex, B, C, **where):
  """Runs a system in chunks of at most 16 tokens."""
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


def _lstm(entered, R, hc, **where):
  flat = lambda z: z.reshape(*z.shape[:-2], 4 * z.shape[-1])
  y, state = lstm.lstm(flat(entered), flat(R), hc[:, 0], hc[:, 1], **where)
  return y, jnp.stack(state, axis=1)


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
  "delta_rule, by channel": Op(_delta, delta_rule.IMPLS, dict(**_rows, w="b t h k", S="b h k p", log_a="b t h k"), "S"),
  "delta_rule, general": Op(
    _delta, delta_rule.IMPLS, dict(**_rows, w="b t h k", S="b h k p", log_a="b t h k", u="b t h k"), "S"
  ),
  "lti": Op(_lti, lti.IMPLS, dict(u="b t e", x="b e n", a_complex="e n", B="e n", C="e n"), "x"),
  "lstm": Op(_lstm, lstm.IMPLS, dict(entered="b t four e", R="e four e", hc="b pair e"), "hc"),
  "rg_lru": Op(rg_lru.rg_lru, rg_lru.IMPLS, dict(u="b t e", r="b t e", i="b t e", a_param="e", h="b e"), "h"),
  "short_conv": Op(_with_bias, short_conv.IMPLS, dict(x="b t e", kernel="w e", taps="b v e", bias="e"), "taps"),
}

# Sizes of published models, or such as a kernel has another way for, by name: the op and its sizes besides b and t.
SIZES = {
  "DeltaNet": ("delta_rule", dict(h=16, k=128, p=128)),
  "Gated DeltaNet": ("delta_rule, gated", dict(h=6, k=256, p=512)),
  "Gated DeltaNet, square heads": ("delta_rule, gated", dict(h=16, k=128, p=128)),
  "GLA": ("gated_linear_attention", dict(h=4, k=128, p=256)),
  "GLA, many heads": ("gated_linear_attention", dict(h=16, k=128, p=128)),
  "RWKV-6": ("gated_linear_attention, bonus", dict(h=32, k=64, p=64)),
  "RG-LRU's scan": ("linear_scan", dict(n=2560)),
  "bytes": ("linear_scan", dict(n=256)),
  "S5": ("linear_scan, one complex decay", dict(n=384)),
  "RG-LRU": ("rg_lru", dict(e=2560)),
  "Mamba 370M": ("selective_scan, gated", dict(e=2048, n=16, g=1)),
  "Mamba 370M's scan": ("selective_scan", dict(e=2048, n=16, g=1)),
  "Mamba 2.8B": ("selective_scan, gated", dict(e=5120, n=16, g=1)),
  "large states": ("selective_scan", dict(e=5120, n=64, g=1)),
  "groups": ("selective_scan, gated", dict(e=1024, n=64, g=2)),
  "Mamba-2 130M": ("ssd", dict(h=24, g=1, k=128, p=64)),
  "Mamba-2 780M": ("ssd", dict(h=48, g=1, k=128, p=64)),
  "Mamba-2 2.7B": ("ssd", dict(h=80, g=1, k=128, p=64)),
  "Mamba-2, eight groups": ("ssd", dict(h=128, g=8, k=128, p=64)),
  "Mamba-2, wide heads": ("ssd", dict(h=8, g=2, k=128, p=128)),
  "Mamba-2, narrow heads": ("ssd", dict(h=6, g=1, k=16, p=16)),
}


def of_size(name: str, dtype: DTypeLike, *, b: int, t: int) -> tuple[Callable[..., tuple[Any, Any]], tuple]:
  """Returns the op of one of SIZES, and the shapes of its arguments."""
  op, sizes = SIZES[name]
  return OPS[op].run, tuple(OPS[op].shapes({"b": b, "t": t, **sizes}, dtype).values())
