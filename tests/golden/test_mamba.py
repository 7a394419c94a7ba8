"""Mamba, Mamba-2 and Mamba-3 beside state-spaces/mamba."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from kernels.selective_scan import selective_scan
from kernels.ssd import ssd
from scripts.golden.mamba import MAMBA2, MAMBA3
from tests.golden.compare import check, conv, dense, read, same


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


@pytest.mark.parametrize("kind", MAMBA2)
def test_mamba_2_is_the_authors(kind):
  given, *_ = read("mamba2", f"{kind}/")
  options = MAMBA2[kind]
  mixer = build(
    "mamba2",
    **{"width": given["x"].shape[-1], "state": 3, "head_size": 2, "groups": options.get("ngroups", 1)},
    **{"D_per": "channel" if options.get("D_has_hdim") else "head", "bias": options.get("bias", False)},
    **{"conv_bias": options.get("conv_bias", True), "ssm_width": options.get("d_ssm")},
    norm="gate_first" if kind == "beside" else kind,
  )

  def params(p):
    found = {name: dense(p, name) for name in ("in_proj", "out_proj")} | {"conv": conv(p, "conv1d")}
    found |= {name: p[name] for name in ("A_log", "D", "dt_bias")}
    return found | ({} if kind == "none" else {"gated_norm": {"scale": p["norm.weight"]}})

  same(mixer, params, "mamba2", f"{kind}/")


# the two others are slow only because there are so many to compile
QUICK = "siso", "mimo_norm"


@pytest.mark.parametrize(
  "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in MAMBA3]
)
def test_mamba_3_is_the_authors(kind):
  given, gradients, (y, angle, *others), weights = read("mamba3", f"{kind}/")
  options = MAMBA3[kind]
  n, rank = given["state.S"].shape[-1], options.get("mimo_rank", 1)
  mixer = build(
    "mamba3",
    **{
      "width": given["x"].shape[-1],
      "state": n,
      "head_size": given["state.S"].shape[2],
      "groups": options.get("ngroups", 1),
      "rank": rank,
    },
    **{"rope_fraction": options.get("rope_fraction", 0.5), "out_norm": options.get("is_outproj_norm", False)},
  )

  def run(p):
    params = {name: p[name] for name in ("D", "dt_bias")}
    params |= {name: {"kernel": p[f"{name}.weight"].T} for name in ("in_proj", "out_proj")}
    params |= {name: {"scale": p[f"{name}.weight"]} for name in ("B_norm", "C_norm")}
    params |= {name: p[name].swapaxes(0, 1) for name in ("B_bias", "C_bias")}
    if rank > 1:
      params |= {f"mimo_{ours}": p[f"mimo_{theirs}"].swapaxes(0, 1) for ours, theirs in zip("uzo", "xzo")}
    if mixer.out_norm:
      params["gated_norm"] = {"scale": p["norm.weight"]}
    by_rank = lambda k: jnp.moveaxis(k, 2, 1) if rank > 1 else k[:, None]
    state = mixer.init_state(*p["x"].shape[:2])._replace(
      S=p["state.S"].swapaxes(2, 3), turn=jnp.exp(1j * p["state.angle"]), k=by_rank(p["state.k"]), u=p["state.u"]
    )
    y, last = mixer.apply({"params": params}, p["x"], state, method="prefill")
    k = jnp.moveaxis(last.k, 1, 2) if rank > 1 else last.k[:, 0]
    return y, last.turn, last.S.swapaxes(2, 3), k

  check(run, given, gradients, [y, np.exp(1j * angle.astype(np.complex64)), *others], weights)
