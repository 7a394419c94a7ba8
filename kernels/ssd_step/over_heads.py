"""Runs kernels for `ssd_step` with heads spread over the devices of a mesh, and a norm over all heads."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from kernels import dispatch
from kernels.gated_norm import inverse_root


def divided(step: Callable, x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps):
  """Makes `reference.ssd_step` of a kernel of our own.

  Args:
    step: on x, z, dt, A, D, taps, S, kernel, bias and norm of a device's heads, with z as "b h p" and a bias; returns y
      without the factor of the norm, the sums of its squares by head, the taps and S.
  """
  b, h, k, p = S.shape
  bias = jnp.zeros_like(kernel[0]) if bias is None else bias
  own = functools.partial(cut, k=k, p=p)

  def run(z, dt, A, D, S, *parts):
    # A device has the channels of its heads beside those of its groups, as all of them were.
    x, taps, kernel, bias = (join(*parts[i : i + 3]) for i in range(0, len(parts), 3))
    y, squares, taps, S = step(x, z, dt, A, D, taps, S, kernel, bias, norm)
    return y, squares, S, *own(taps, S.shape[1])

  parts = [part for whole in (x, taps, kernel, bias) for part in own(whole, h)]
  by_part = lambda *lead: tuple(" ".join((*lead, axes)) for axes in ("h p", "g k", "g k"))
  axes = "b h p", "b h", "h", "h q", "b h k p", *by_part("b"), *by_part("b", "v"), *by_part("w"), *by_part()
  sharded = dispatch.shard(run, axes, ("b h p", "b h", "b h k p", *by_part("b", "v")))
  y, squares, S, *taps = sharded(z.reshape(b, h, p), dt, A, D, S, *parts)
  y = y.reshape(b, -1)
  if norm != "none":
    mean = squares.reshape(b, norm_groups, -1).sum(-1) * (norm_groups / (h * p))
    y = y * jnp.repeat(inverse_root(mean, eps), h * p // norm_groups, axis=1) * scale
  return y, join(*taps), S


def why_not(S, taps, norm, norm_groups) -> str | None:
  """Returns why the kernels cannot run these arguments on any device, or None."""
  if not taps.shape[1]:
    return "a kernel of one tap carries none"
  if norm != "none" and S.shape[1] % norm_groups:
    return f"norm_groups={norm_groups} do not divide the {S.shape[1]} heads"
  return None


def cut(z, h, *, k, p):
  """Cuts the convolution's channels into those of heads, u, and of groups, B and C."""
  u, B, C = jnp.split(z, [h * p, (z.shape[-1] + h * p) // 2], axis=-1)
  part = lambda m, size: m.reshape(*m.shape[:-1], -1, size)
  return part(u, p), part(B, k), part(C, k)


def join(*parts):
  """Returns the inverse of `cut`."""
  return jnp.concatenate([part.reshape(*part.shape[:-2], -1) for part in parts], axis=-1)
