"""DSS beside ag1988/dss."""

import jax.numpy as jnp

from hybrids.mixer import build
from tests.golden.compare import check, read


def test_dss_exp_has_the_kernel_of_the_authors():
  """The kernel is what an impulse makes of the layer without D."""
  given, _, outputs, _ = recorded = read("dss", "exp/")
  (d, t), n = outputs[0].shape, given["W"].shape[2]
  mixer = build("dss", width=d, state=n, activation="none")
  impulse = jnp.zeros((1, t, d)).at[0, 0].set(1)

  def run(p):
    params = {"lam_log": p["Lambda_log_neg_re"], "lam_im": p["Lambda_im"], "log_dt": p["log_dt"], "D": jnp.zeros(d)}
    params |= {"C_re": p["W"][0, ..., 0], "C_im": p["W"][0, ..., 1]}
    return (mixer.apply({"params": params}, impulse)[0].T,)

  check(run, *recorded)
