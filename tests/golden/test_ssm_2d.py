"""The two-dimensional state space beside ethanbar11/ssm_2d."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from scripts.golden.ssm_2d import SSM2D
from tests.golden.compare import check, read


@pytest.mark.parametrize("numbers", SSM2D)
def test_ssm2d_is_the_authors(numbers):
  given, *rest = read("ssm2d", f"{numbers}/")
  d, n, directions = given["omega"].size, given["B_1"].shape[1], SSM2D[numbers]["directions_amount"]
  mixer = build("ssm2d", width=d, state=n, directions=directions, numbers=numbers)
  sides = ["A"] if numbers == "real" else ["A_radius", "A_angle"]

  def run(p):
    stacked = lambda names: jnp.stack([p[name].reshape(directions, d, *p[name].shape[1:]) for name in names])
    of_A = [stacked([f"{side}.A_{i}" for i in range(1, 5)]) for side in sides]
    params = dict(zip(("A_size", "A_angle"), of_A)) | {"D": p["omega"]}
    params |= {name: stacked([f"{name}_1", f"{name}_2"]) for name in "BC"}
    return (mixer.apply({"params": params}, p["x"].swapaxes(0, 1)).swapaxes(0, 1),)

  check(run, given, *rest)
