"""`lstm` on CPUs in C++ (cpp.cc), built when first used: values and gradients in float32.

For the gradient, forward keeps the gates and c of every token. The gradient of R is one matrix product in the end.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from kernels import cpp, dispatch, op
from kernels.kept_states import named

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
AXES = ("b t f", "d f", "b d", "b d", "b t", "b t")


def why_not(entered, *_) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  return cpp.why_not(SOURCE, entered)


def lstm(entered, R, h, c, reset, valid):
  """Makes all gates of a vector of channels at once, from a copy of R in that order."""
  y, h, c = dispatch.shard(_scan, AXES, ("b t d", "b d", "b d"))(entered, R, h, c, reset, valid)
  return y, (h, c)


@jax.custom_vjp
def _scan(*args):
  return _run(*args, save=False)[:3]


def _run(entered, R, h, c, reset, valid, *, save):
  """Returns all y, the last h and c, and if `save` the gates and c of all tokens, else none."""
  b, t, f = entered.shape
  kept = t if save else 0
  shapes = ((b, t, f // 4), h.shape, c.shape, (b, kept, f), (b, kept, f // 4))
  call = cpp.call(FORWARD, shapes, _parts(b))
  return call(entered, R, h, c, cpp.mask(reset), cpp.mask(valid))


def _forward(*args):
  y, last_h, last_c, gates, cells = named(_run(*args, save=True))
  return (y, last_h, last_c), (*args[1:], y, gates, cells)


def _backward(saved, bars):
  R, h, c, reset, valid, y, gates, cells = saved
  y_bar, h_bar, c_bar = bars
  call = cpp.call(BACKWARD, (gates.shape, h.shape, c.shape), _parts(len(h)))
  entered_bar, h_bar, c_bar = call(R, c, cpp.mask(reset), cpp.mask(valid), gates, cells, y_bar, h_bar, c_bar)
  before = op.cleared(reset, jnp.concatenate([h[:, None], y[:, :-1]], axis=1))
  R_bar = jnp.einsum("btd,btf->df", before, entered_bar, precision=jax.lax.Precision.HIGHEST)
  return entered_bar, R_bar, h_bar, c_bar, None, None


_scan.defvjp(_forward, _backward)


def _parts(b):
  """Returns into how many parts the rows are cut. More than one a core would read R more often."""
  return cpp.parts(1, b)
