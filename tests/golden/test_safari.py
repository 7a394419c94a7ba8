"""H3 and Hyena beside HazyResearch/safari."""

import jax
import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, read


def linear(p, name):
  """A layer's kernel and bias, of a row or column order of its own if one is given."""
  return {"kernel": p[f"{name}.weight"].T, "bias": p[f"{name}.bias"]}


@pytest.mark.parametrize("kind, head", [("elementwise", 1), ("outer", 2)])
def test_h3_is_the_authors(kind, head):
  given, *rest = read("h3", f"{kind}/")
  d, n = given["ssm_k_kernel.B"].shape
  mixer = build("h3", width=d, state=n, head_dim=head)

  def run(p):
    ssm = {"A_log": p["kernel.inv_A_real"], "A_im": p["kernel.A_imag"], "log_dt": p["kernel.log_dt"], "D": p["D"]}
    for name, value in {"B": p["kernel.B"], "C": p["kernel.C"][0]}.items():
      ssm |= {f"{name}_re": value[..., 0], f"{name}_im": value[..., 1]}
    params = {name: linear(p, name) for name in ("q_proj", "k_proj", "v_proj")}
    # theirs takes in heads as (head, entry) and gives them out as (entry, head)
    kernel = p["output_linear.weight"].T.reshape(head, d // head, d).swapaxes(0, 1).reshape(d, d)
    params |= {"out_proj": {"kernel": kernel, "bias": p["output_linear.bias"]}, "ssm": ssm}
    params |= {"shift_B": p["ssm_k_kernel.B"], "shift_C": p["ssm_k_kernel.C"][0], "shift_D": p["ssm_k_D"]}
    variables = {"params": params}
    y = mixer.apply(variables, p["x"])
    if head > 1:
      return (y,)
    step = lambda state, x: mixer.apply(variables, x, state, method="step")[::-1]
    _, steps = jax.lax.scan(step, mixer.init_state(*p["x"].shape[:2]), p["x"].swapaxes(0, 1))
    return y, steps.swapaxes(0, 1)

  check(run, given, *rest)


@pytest.mark.parametrize("kind", ["plain", "outer_mixing"])
def test_hyena_is_the_authors(kind):
  given, *rest = read("hyena", f"{kind}/")
  d, order, layers = given["x"].shape[-1], 3, "filter_fn.implicit_filter"
  sizes = {"order": order, "max_len": 24, "filter_width": 6, "features": 5}
  mixer = build("hyena", width=d, **sizes, shift=0.1, outer_mixing=kind == "outer_mixing")

  def by_use(z):
    """Theirs uses gates from the last to the first."""
    *gates, v = jnp.split(z, order + 1)
    return jnp.concatenate([*gates[::-1], v])

  def run(p):
    params = {"in_proj": jax.tree.map(lambda z: by_use(z.T).T, linear(p, "in_proj")), "out_proj": linear(p, "out_proj")}
    params["conv"] = {"kernel": by_use(p["short_filter.weight"][:, 0]).T, "bias": by_use(p["short_filter.bias"])}
    params |= {f"filter_layers_{i}": linear(p, f"{layers}.{2 * i}") for i in range(3)}
    params |= {"filter_out": {"kernel": p[f"{layers}.6.weight"].T}, "w": p[f"{layers}.1.freq"]}
    params["b"] = p["filter_fn.bias"].reshape(d, order - 1).T
    return (mixer.apply({"params": params}, p["x"]),)

  check(run, given, *rest)
