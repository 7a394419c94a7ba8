"""DSS beside ag1988/dss."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, read


@pytest.mark.parametrize("kernel", ["exp", "softmax"])
def test_dss_has_the_kernel_of_the_authors(kernel):
  """The kernel is what an impulse makes of the layer without D."""
  given, _, outputs, _ = recorded = read("dss", f"{kernel}/")
  (d, t), n = outputs[0].shape, given["W"].shape[2]
  mixer = build("dss", width=d, state=n, kernel=kernel, max_len=t, activation="none")
  impulse = jnp.zeros((1, t, d)).at[0, 0].set(1)

  def run(p):
    params = {"C_re": p["W"][0, ..., 0], "C_im": p["W"][0, ..., 1], "log_dt": p["log_dt"], "D": jnp.zeros(d)}
    if kernel == "exp":
      params |= {"lam_log": p["Lambda_log_neg_re"], "lam_im": p["Lambda_im"]}
    else:
      params |= {"lam_re": p["Lambda"][:, 0], "lam_im": p["Lambda"][:, 1]}
    return (mixer.apply({"params": params}, impulse)[0].T,)

  check(run, *recorded)
