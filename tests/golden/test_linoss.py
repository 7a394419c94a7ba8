"""LinOSS beside its authors' code, and damped beside another's."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, read


@pytest.mark.parametrize("disc", ["im", "imex", "damped"])
def test_linoss_is_that_of_others(disc):
  given, *rest = read("damped_linoss") if disc == "damped" else read("linoss", f"{disc}/")
  n, d = given["B_re"].shape
  mixer = build("linoss", width=d, state=n, disc=disc, activation="none")

  def run(p):
    params = {name: value for name, value in p.items() if name != "x"} | {"D": jnp.zeros(d)}
    return (mixer.apply({"params": params}, p["x"][None])[0],)

  check(run, given, *rest)
