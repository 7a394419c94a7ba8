"""The definition of `ssd_step`, around what advances its state."""

import jax
import jax.numpy as jnp

from kernels.conv_step.reference import conv_step
from kernels.gated_norm import gated_rms_norm


def around(advance):
  """Returns `ssd_step` with `advance(u, dt, A, B, C, S)` for S <- exp(dt A) S + B (dt u)^T, which gives S^T C and S.

  u is "b h p", dt "b h"; B and C are "b g k".
  """

  def ssd_step(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps):
    b, h, k, p = S.shape
    x, taps = conv_step(x, taps, kernel, bias, "silu")
    u, BC = x[:, : h * p].reshape(b, h, p), x[:, h * p :].reshape(b, 2, -1, k)
    y, S = advance(u, dt, A, BC[:, 0], BC[:, 1], S)
    y, gate = (y + D * u).reshape(b, -1), jax.nn.silu(z)
    if scale is None:
      return y * gate, taps, S
    return gated_rms_norm(y, gate, scale, order=norm, groups=norm_groups, eps=eps), taps, S

  return ssd_step


def _advance(u, dt, A, B, C, S):
  B, C = (jnp.repeat(m, u.shape[1] // m.shape[1], axis=1) for m in (B, C))
  S = jnp.exp(dt * A)[..., None, None] * S + B[..., None] * (dt[..., None] * u)[..., None, :]
  return jnp.einsum("bhkp,bhk->bhp", S, C, precision="highest"), S


ssd_step = around(_advance)
