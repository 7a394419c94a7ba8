"""Mamba, Mamba-2 and Mamba-3 beside state-spaces/mamba."""

import jax
import jax.numpy as jnp
import pytest

from kernels.selective_scan import selective_scan
from kernels.ssd import ssd
from tests.golden.compare import check, read


@pytest.mark.parametrize("kind, impl", [("real", "xla"), ("real", "associative"), ("complex", "associative")])
def test_selective_scan_is_mambas(kind, impl):
  given, *rest = read("selective_scan", f"{kind}/")

  def by_token(z):
    """b g n t -> b t g n; complex numbers come as pairs along time."""
    if kind == "complex":
      z = z.reshape(*z.shape[:-1], -1, 2)
      z = jax.lax.complex(z[..., 0], z[..., 1])
    return jnp.moveaxis(z, -1, 1)

  def run(p):
    x, dt = p["x"].swapaxes(1, 2), p["dt"].swapaxes(1, 2)
    h = jnp.zeros((x.shape[0], *p["A"].shape), p["A"].dtype)
    # theirs puts the factor for conjugate pairs into the op
    C = by_token(p["C"]) * (2 if kind == "complex" else 1)
    y, last = selective_scan(x, dt, p["A"], by_token(p["B"]), C, h, impl=impl)
    return y.swapaxes(1, 2), last

  check(run, given, *rest)


def test_ssd_is_mamba_2s():
  given, *rest = read("ssd")

  def run(p):
    y, last = ssd(p["q"], p["k"], p["v"], p["log_a"], p["S"][:, 0].swapaxes(2, 3))
    return y, last.swapaxes(2, 3)

  check(run, given, *rest)
