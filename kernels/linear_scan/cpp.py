"""`linear_scan` on CPUs in C++ (cpp.cc), built when first used, in float32: of complex numbers both parts."""

from pathlib import Path

import jax.numpy as jnp

from kernels import cpp, dispatch
from kernels.linear_scan import adjoint
from kernels.linear_scan.pairs import parts, whole

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
CHANNELS = 64  # at least, of a thread


def why_not(a, x, h, reset) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  return cpp.why_not(SOURCE, *(z.real for z in (a, x, h)))


def linear_scan(a, x, h, reset):
  """Computes `reference.linear_scan`."""
  axes = ("e" if a.ndim == 1 else "b t e", "b t e", "b e", "b t")
  return dispatch.shard(_scan, axes, ("b t e", "b e"))(a, x, h, reset)


def _forward(a, x, h, reset):
  pairs = [*_pair(a), *_pair(x), *_pair(h)]
  # outputs take the place of inputs, which nobody needs again
  call = cpp.call(FORWARD, [z.shape for z in pairs[2:4]], _parts(x), in_place={2: 0, 3: 1})
  y = _whole(*call(*pairs, cpp.mask(reset)))
  return y, y[:, -1]


def _backward(a, h, y, reset, y_bar, last_bar):
  decays, given = _pair(a), [*_pair(y), *_pair(y_bar), *_pair(last_bar)]
  # the gradient of a decay that tokens share is summed up for each row
  by_row = lambda z: (len(y), *z.shape) if a.ndim == 1 and z.size else z.shape
  shapes = *map(by_row, decays), *(z.shape for z in given[2:])
  call = cpp.call(BACKWARD, shapes, _parts(y), in_place={7: 2, 8: 3})
  bars = call(*decays, *_pair(h), cpp.mask(reset), *given)
  a_bar, x_bar, h_bar = (_whole(*bars[i : i + 2]) for i in (0, 2, 4))
  return a_bar.sum(0) if a.ndim == 1 else a_bar, x_bar, h_bar


_scan = adjoint.differentiable(_forward, _backward)


def _pair(z):
  """Returns both parts of an array; the second of a real one is empty."""
  return (*parts(z), jnp.zeros((0,), z.real.dtype))[:2]


def _whole(re, im):
  return whole((re, im) if im.size else (re,))


def _parts(x):
  """Returns into how many parts the channels of a row are cut."""
  return cpp.parts(x.shape[0], x.shape[2] // CHANNELS)
