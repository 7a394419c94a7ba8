"""Liquid-S4 beside raminmh/liquid-s4."""

from hybrids.mixer import build
from tests.golden.compare import check, read


def test_liquid_s4_in_the_official_form_is_the_authors():
  given, *rest = read("liquid_s4")
  _, d, t = given["x"].shape
  mixer = build(
    "liquid_s4", width=d, state=2 * given["kernel.kernel.A_imag"].shape[1], degree=3, form="official", activation="none"
  )

  def run(p):
    kernel = {name: p[f"kernel.kernel.{name}"] for name in ("inv_A_real", "A_imag", "log_dt", "B", "C")}
    ssm = {"A_log": kernel["inv_A_real"], "A_im": kernel["A_imag"], "log_dt": kernel["log_dt"], "D": p["D"][0]}
    for name, value in {"B": kernel["B"], "C": kernel["C"][0]}.items():
      ssm |= {f"{name}_re": value[..., 0], f"{name}_im": value[..., 1]}
    y = mixer.apply({"params": {"ssm": ssm}}, p["x"].swapaxes(1, 2))
    return (y.swapaxes(1, 2),)

  check(run, given, *rest)
