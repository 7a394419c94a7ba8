"""S4, S4D, S4ND and LSSL beside state-spaces/s4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from scripts.golden.s4 import S4ND
from ssm.lti import diagonal, discretization, dplr, hippo
from tests.golden.compare import check, dense, entries_of, near, read, same


def test_s4d_has_the_kernel_of_the_authors():
  given, gradients, outputs, weights = read("s4d_kernel")

  def run(p):
    A = jax.lax.complex(-jnp.exp(p["log_A_real"]), p["A_imag"])
    log_A, B = discretization.zoh(jnp.exp(p["log_dt"])[:, None], A)
    C = 2 * jax.lax.complex(p["C"][..., 0], p["C"][..., 1])
    return (diagonal.taps(log_A, C * B, jnp.zeros(len(p["log_dt"])), outputs[0].shape[1]),)

  check(run, given, gradients, outputs, weights)


@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_s4_is_the_authors(measure):
  """Ours in single precision, theirs in double, see `scripts.golden.s4.s4`."""
  given, gradients, outputs, weights = read("s4", f"{measure}/")
  C_cut = outputs.pop()
  b, d, t = given["x"].shape
  mixer = build("s4", width=d, state=2 * given["state"].shape[-1], A_init=measure, activation="none")
  full = lambda state: jax.lax.complex(*jnp.split(state.h, 2, axis=-1))

  def variables(p):
    params = {"A_log": p["kernel.A_real"], "A_im": -p["kernel.A_imag"], "log_dt": p["kernel.inv_dt"][:, 0]}
    for name in "PBC":
      params |= {f"{name}_re": p[f"kernel.{name}"][0, ..., 0], f"{name}_im": p[f"kernel.{name}"][0, ..., 1]}
    return {"params": params | {"D": p["D"][0]}}

  def run(p):
    state = mixer.init_state(b, t)._replace(h=dplr.as_state(p["state"]))
    y, last = mixer.apply(variables(p), p["x"].swapaxes(1, 2), state, method="prefill")
    K = dplr.taps(*mixer.apply(variables(p), method="_continuous"), t)
    step = lambda state, x: mixer.apply(variables(p), x, state, method="step")[::-1]
    stepped, steps = jax.lax.scan(step, state, p["x"].transpose(2, 0, 1))
    return y.swapaxes(1, 2), full(last), K, steps.transpose(1, 2, 0), full(stepped)

  check(run, given, gradients, outputs, weights)
  wide = [np.asarray(z, np.complex128) for z in mixer.apply(variables(given), method="_continuous")]
  C_cut = np.array(C_cut[0], np.float64) @ [1, 1j]
  near(dplr.uncut(C_cut, t, wide[0].real, wide[1], wide[2]), wide[4], "C of what is trained there")


@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_s4_starts_where_the_authors_do(measure):
  """Up to a phase per state, which eigenvectors leave open and which P, B and C have in common."""
  theirs = entries_of("s4", f"{measure}/start/")
  lam, P, B = hippo.dplr(measure, 2 * len(theirs["lam"]))
  near(lam, theirs["lam"], "lam")
  near(np.abs(P[0]), np.abs(theirs["P"]), "|P|")
  near(P[0].conj() * B, theirs["P"].conj() * theirs["B"], "P* B")


@pytest.mark.parametrize("kind", S4ND)
def test_s4nd_is_the_authors(kind):
  given, *rest = read("s4nd", f"{kind}/")
  _, d, *sides = given["x"].shape
  n, options = given["kernel.0.A_real"].shape[1], S4ND[kind]
  rank, ways, axes = options.get("trank", 1), options.get("bidirectional", True), ("frame", "row", "column")
  axes = axes[-len(sides) :]
  sizes = {f"{axis}s": side for axis, side in zip(axes, sides)} | {"dim": len(sides), "rank": rank}
  sizes |= {"bidirectional": ways, "state": 2 * n, "bandlimit": options.get("bandlimit")}
  dplr_too = {"structure": "dplr", "A_init": "legs"} if kind == "dplr" else {}
  mixer = build("s4nd", width=d, **sizes, **dplr_too, activation="none")

  def run(p):
    params = {"D": p["D"][0]}
    for i, axis in enumerate(axes):
      params |= {f"{axis}_A_log": p[f"kernel.{i}.A_real"], f"{axis}_A_im": -p[f"kernel.{i}.A_imag"]}
      C = p[f"kernel.{i}.C"].reshape(1 + ways, rank, d, n, 2).swapaxes(0, 1)
      vectors = {"B": p[f"kernel.{i}.B"][0], "C": C} | ({"P": p[f"kernel.{i}.P"][0]} if dplr_too else {})
      for name, value in vectors.items():
        params |= {f"{axis}_{name}_re": value[..., 0], f"{axis}_{name}_im": value[..., 1]}
      params[f"{axis}_log_dt"] = p[f"kernel.{i}.inv_dt"][:, 0]
    y = mixer.apply({"params": params}, p["x"].reshape(*p["x"].shape[:2], -1).swapaxes(1, 2))
    return (y.swapaxes(1, 2).reshape(p["x"].shape),)

  check(run, given, *rest)


def test_lssl_is_the_authors():
  given, *_ = read("lssl")

  def params(p):
    found = {"A": p["transition.a"][None], "B": p["transition.b"][None], "log_dt": p["log_dt"]}
    return found | {"C": p["C"][:, 0], "D": p["D"][:, 0], "out_proj": dense(p, "output_linear")}

  same(build("lssl", width=given["log_dt"].size, state=given["transition.b"].size), params, "lssl")
