"""H3 and Hyena beside HazyResearch/safari."""

import jax
import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, dense, read, same


@pytest.mark.parametrize("kind, head", [("elementwise", 1), ("outer", 2)])
def test_h3_is_the_authors(kind, head):
  given, *rest = read("h3", f"{kind}/")
  d, n = given["ssm_k_kernel.B"].shape
  mixer = build("h3", width=d, state=n, head_dim=head)

  def run(p):
    ssm = {"A_log": p["kernel.inv_A_real"], "A_im": p["kernel.A_imag"], "log_dt": p["kernel.log_dt"], "D": p["D"]}
    for name, value in {"B": p["kernel.B"], "C": p["kernel.C"][0]}.items():
      ssm |= {f"{name}_re": value[..., 0], f"{name}_im": value[..., 1]}
    params = {name: dense(p, name) for name in ("q_proj", "k_proj", "v_proj")}
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
  given, *_ = read("hyena", f"{kind}/")
  d, order, layers = given["x"].shape[-1], 3, "filter_fn.implicit_filter"
  sizes = {"order": order, "max_len": 24, "filter_width": 6, "features": 5}
  mixer = build("hyena", width=d, **sizes, shift=0.1, outer_mixing=kind == "outer_mixing")

  def by_use(z):
    """Theirs uses gates from the last to the first."""
    *gates, v = jnp.split(z, order + 1)
    return jnp.concatenate([*gates[::-1], v])

  def params(p):
    found = {"in_proj": jax.tree.map(lambda z: by_use(z.T).T, dense(p, "in_proj")), "out_proj": dense(p, "out_proj")}
    found["conv"] = {"kernel": by_use(p["short_filter.weight"][:, 0]).T, "bias": by_use(p["short_filter.bias"])}
    found |= {f"filter_layers_{i}": dense(p, f"{layers}.{2 * i}") for i in range(3)}
    found |= {"filter_out": dense(p, f"{layers}.6"), "w": p[f"{layers}.1.freq"]}
    return found | {"b": p["filter_fn.bias"].reshape(d, order - 1).T}

  same(mixer, params, "hyena", f"{kind}/")
