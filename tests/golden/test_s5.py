"""S5 beside lindermanlab/S5."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, read


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_s5_is_the_authors(disc):
  given, *rest = read("s5", f"{disc}/")
  n, d = given["B_re"].shape
  mixer = build("s5", width=d, state=2 * n, disc=disc, activation="none")

  def run(p):
    params = {name: value for name, value in p.items() if name != "x"} | {"D": jnp.zeros(d)}
    return (mixer.apply({"params": params}, p["x"][None])[0],)

  check(run, given, *rest)
