"""Mamba-2: initial values, published sizes, and the duality with attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.ssd import IMPLS, reference
from ssm.selective.mamba2 import Mamba2
from tests.initial import made, spread, time_steps, uniform
from tests.kernels.dual_of_ssd import quadratic
from tests.quick import quick
from tests.stepped import stepped

SMALL = {
  "": dict(state=4, head_size=4, groups=2, dt_most=0.1),
  "beside an MLP": dict(state=3, head_size=4, ssm_width=8),
}
ORACLE = {
  "": dict(state=4, head_size=4),
  "groups": (
    dict(state=3, head_size=2, groups=2, norm="norm_first", D_per="channel", bias=True, conv_bias=False),
    dict(norm_groups=2),
  ),
  "beside an MLP": dict(state=3, expand=3, ssm_width=8, head_size=2, bias=True),
  "no norm": (dict(state=3, taps=2, inner=12, norm="none", dt_least=0.01, dt_most=0.05), dict(dt_limit=(0.01, 0.05))),
}
TRAINED = {"slow": {"A_log", "dt_bias"}}
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(head_size=5), "head_size=5 does not divide the inner width 16"),
  (dict(head_size=4, groups=3), "groups=3 does not divide the number of heads 4"),
  (dict(ssm_width=17), "ssm_width=17 is more than the inner width 16"),
  (dict(ssm_width=6, head_size=4), "head_size=4 does not divide the ssm_width 6"),
  (dict(norm_groups=3), "norm_groups=3 does not divide the inner width 16"),
  (dict(norm="batch"), "norm='batch'; choose from"),
  (dict(D_per="token"), "D_per='token'; choose from"),
  (dict(dt_least=0.1, dt_most=0.1), "dt_least=0.1, dt_most=0.1"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
  (dict(A_min=0.0), "low=0.0, high=16.0"),
]
# Deep models start with smaller outputs.
INITIAL = [
  (
    dict(width=256, head_size=2, state=16, depth=16),
    {
      "A_log": spread(1, 8.5, 16, atol=0.7),
      "D": np.ones(256),
      "dt_bias": time_steps(),
      "gated_norm/scale": np.ones(512),
      "in_proj": uniform(256**-0.5),
      "out_proj": uniform(512**-0.5 / 4),
      "conv": uniform(4**-0.5),
    },
  )
]


def count(d, state, head_size, groups=1, ssm_width=None, **_):
  """In, out; convolution with bias; A, D and dt of each head; the norm."""
  inner, e = 2 * d, ssm_width or 2 * d
  heads, mixed = e // head_size, e + 2 * groups * state
  return d * (2 * (inner - e) + e + mixed + heads) + inner * d + mixed * (4 + 1) + 3 * heads + e


initial = functools.partial(made, Mamba2)


def test_decays_and_steps_start_in_the_ranges_of_the_fields():
  p = initial(64, head_size=1, A_min=0.5, A_max=0.6, dt_min=1e-6, dt_floor=1e-3)[1]["params"]
  assert np.exp(p["A_log"]).min() >= 0.499
  assert np.exp(p["A_log"]).max() <= 0.601
  assert jax.nn.softplus(p["dt_bias"]).min() >= 0.999e-3


@pytest.mark.parametrize(
  "width, depth, total", [(768, 24, 128989632), (1024, 48, 368346624), (2048, 48, 1343757312), (2560, 64, 2702599680)]
)
def test_published_sizes(width, depth, total):
  """mamba2-130m, -370m, -1.3b and -2.7b: so many layers with a norm each, a last norm, and tied embeddings."""
  shape = jax.eval_shape(Mamba2(width=width).init, jax.random.key(0), jnp.zeros((1, 1, width)))
  layer = sum(leaf.size for leaf in jax.tree.leaves(shape))
  assert depth * (layer + width) + width + 50288 * width == total


def test_attention_chunks_and_recurrence_are_dual(monkeypatch):
  """The same layer with its decay mask written out, in chunks, token by token, and by steps (sec. 5)."""
  module, variables = initial(8, state=4, head_size=4)
  x = jax.random.normal(jax.random.key(1), (2, 70, 8))
  run = lambda: jax.jit(lambda x: module.apply(variables, x), compiler_options=quick())(x)  # traced each time
  chunked = run()
  assert np.abs(chunked).max() > 0.1
  y, _ = stepped(module, variables, x[:, :5], module.init_state(2, 70))
  np.testing.assert_allclose(y, chunked[:, :5], atol=1e-5)
  for form in (reference.ssd, quadratic):
    monkeypatch.setitem(IMPLS, "xla", (form, lambda *_: None))
    np.testing.assert_allclose(run(), chunked, atol=1e-5)


def test_the_rest_of_the_inner_width_is_a_gated_mlp():
  """In the authors' order: z_0, u_0, z, u, B, C, dt; and the MLP's part before the other in W_out."""
  module, variables = initial(8, state=4, head_size=2, ssm_width=6)
  p = variables["params"]
  assert p["in_proj"]["kernel"].shape == (8, 2 * 16 + 2 * 4 + 3)
  assert {name: p[name]["kernel"].shape for name in ("conv", "out_proj")} == {"conv": (4, 14), "out_proj": (16, 8)}
  x = jax.random.normal(jax.random.key(1), (1, 9, 8))
  only = lambda rows: {"params": p | {"out_proj": {"kernel": jnp.where(rows[:, None], p["out_proj"]["kernel"], 0)}}}
  run = jax.jit(module.apply)
  beside = np.arange(16) < 10
  z_0, u_0 = jnp.split(x @ p["in_proj"]["kernel"][:, :20], 2, axis=-1)
  mlp = (jax.nn.silu(z_0) * u_0) @ p["out_proj"]["kernel"][:10]
  np.testing.assert_allclose(run(only(beside), x), mlp, atol=1e-6)
  assert np.abs(run(only(~beside), x)).max() > 1e-3
  np.testing.assert_allclose(run(variables, x), run(only(beside), x) + run(only(~beside), x), atol=1e-6)


def test_one_head_forgets_at_one_rate():
  """All states of a head decay by one factor, and those of different heads by different ones."""
  module, variables = initial(8, state=4, head_size=4)
  S = jax.random.normal(jax.random.key(1), (1, 4, 4, 4))
  step = jax.jit(functools.partial(module.apply, method="step"))
  empty = module.init_state(1, 4)
  x = jax.random.normal(jax.random.key(2), (1, 8))
  decay = (step(variables, x, empty._replace(S=S))[1].S - step(variables, x, empty)[1].S) / S
  np.testing.assert_allclose(decay, np.broadcast_to(decay[..., :1, :1], decay.shape), rtol=1e-3)
  assert np.unique(np.round(decay, 4)).size == 4


def test_steps_are_float32_for_bfloat16_inputs():
  """bfloat16 holds 0.1 + 1e-4 as 0.1; a state that decays by exp(-dt) would not see the difference."""
  module, variables = initial(8, state=4)
  x = jax.ShapeDtypeStruct((1, 1, 8), jnp.bfloat16)
  parts = jax.eval_shape(lambda x: module.apply(variables, x, method="_project"), x)
  assert [value.dtype for value in parts] == [*[jnp.bfloat16] * 3, jnp.float32]
