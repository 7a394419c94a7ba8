"""The definition of `ssd_step`."""

import jax
import jax.numpy as jnp

from kernels.conv_step.reference import conv_step
from kernels.gated_norm import gated_rms_norm


def ssd_step(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps):
  """S <- exp(dt A) S + B (dt u)^T;  y = norm(S^T C + D u, gated by SiLU(z))."""
  b, h, k, p = S.shape
  x, taps = conv_step(x, taps, kernel, bias, "silu")
  u, BC = x[:, : h * p].reshape(b, h, p), x[:, h * p :].reshape(b, 2, -1, k)
  B, C = jnp.repeat(BC, h // BC.shape[2], axis=2).swapaxes(0, 1)
  S = jnp.exp(dt * A)[..., None, None] * S + B[..., None] * (dt[..., None] * u)[..., None, :]
  y = jnp.einsum("bhkp,bhk->bhp", S, C, precision="highest") + D * u
  y, gate = y.reshape(b, -1), jax.nn.silu(z)
  if scale is None:
    return y * gate, taps, S
  return gated_rms_norm(y, gate, scale, order=norm, groups=norm_groups, eps=eps), taps, S
