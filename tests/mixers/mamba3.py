"""Mamba-3: initial values, complex states, Mamba-2 as a special case, and parity, which Mamba-2 cannot compute."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.ssd import ssd
from layers.initializers import inverse_softplus
from ssm.selective.mamba3 import A_ACTIVATIONS, Mamba3
from tests.initial import time_steps, uniform
from tests.quick import quick

SMALL = {"": dict(state=4, head_size=4, groups=2), "MIMO": dict(state=4, head_size=4, rank=2, out_norm=True)}
ORACLE = {
  "": (dict(state=6, head_size=4), dict(pairs=1)),
  "MIMO": (dict(state=4, head_size=4, rank=3), dict(pairs=1)),
  "MIMO with a norm": (dict(state=4, head_size=8, groups=2, rank=2, out_norm=True), dict(pairs=1)),
  "groups": (
    dict(state=4, head_size=2, groups=2, rope_fraction=1.0, A_activation="softplus", out_norm=True),
    dict(pairs=2, A="softplus"),
  ),
}
TRAINED = {"slow": {"dt_bias"}, "undecayed": {"B_bias", "C_bias", "mimo_u", "mimo_z", "mimo_o"}}
REFUSED = [
  (dict(rank=0), "rank=0; it must be at least 1"),
  (dict(head_size=5), "head_size=5 does not divide the inner width 16"),
  (dict(head_size=4, groups=3), "groups=3 does not divide the number of heads 4"),
  (dict(state=2), "rope_fraction=0.5 of state=2 rows"),
  (dict(rope_fraction=1.5), "rope_fraction=1.5 of state=128 rows"),
  (dict(A_activation="relu"), "A_activation='relu'; choose from"),
  (dict(A_floor=-1.0), "A_floor=-1.0"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
]
INITIAL = [
  (
    dict(width=256, head_size=2, state=16, rank=4, out_norm=True),
    {
      "dt_bias": time_steps(),
      "D B_bias C_bias mimo_z": 1,
      "mimo_u mimo_o": 0.25,
      "in_proj": uniform(256**-0.5),
      "out_proj": uniform(512**-0.5),
    },
  )
]


def count(d, state, head_size, groups=1, rank=1, out_norm=False):
  """In (half of the rows turn in pairs), out; dt and D; norms and biases of B and C; three vectors a rank; a norm."""
  e, heads = 2 * d, 2 * d // head_size
  features = 2 * e + 2 * state * groups * rank + 3 * heads + state // 4
  mimo = 3 * rank * e if rank > 1 else 0
  return d * features + e * d + 2 * heads + 2 * state * (1 + rank * heads) + mimo + out_norm * e


def initial(width, **kwargs):
  module = Mamba3(width=width, **kwargs)
  return module, nn.unbox(jax.jit(module.init, compiler_options=quick())(jax.random.key(0), jnp.zeros((1, 1, width))))


def columns(module):
  """The columns of W_in of each of its outputs, by name."""
  inner, heads, _ = module._sizes
  mixed = module.rank * module.groups * module.state
  sizes = dict(z=inner, u=inner, B=mixed, C=mixed, dt=heads, A=heads, lam=heads, angle=module._pairs)
  ends = np.cumsum(list(sizes.values()))
  return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def test_the_heavy_tail_is_smooth_at_zero():
  f = A_ACTIVATIONS["heavy_tail"]
  np.testing.assert_allclose([f(x) for x in (-3.0, 0.0, 2.0)], [0.25, 1, 3])
  np.testing.assert_allclose([jax.grad(f)(x) for x in (-1e-4, 0.0, 1e-4)], 1, rtol=1e-3)


@pytest.mark.parametrize("rank", [1, 3])
def test_equals_a_complex_state_space(rank):
  """h_t = a_t e^{-i phi_t} (h_{t-1} + carried_t b_{t-1} u_{t-1}) + now_t b_t u_t,  y_t = Re(conj(c_t) h_t)."""
  module, variables = initial(8, state=6, head_size=4, rank=rank, rope_fraction=1.0)
  x = jax.random.normal(jax.random.key(1), (2, 50, 8))

  @functools.partial(jax.jit, compiler_options=quick())
  def run(x):
    bound = module.bind(variables)
    return bound._select(x), bound.prefill(x, module.init_state(2, 50)), bound._ranks(bound._select(x).u)

  token, (y, state), u = jax.tree.map(lambda z: np.asarray(z, np.result_type(z, np.float64)), run(x))
  b, c = (z[..., 0::2] + 1j * z[..., 1::2] for z in (token.k, token.q))
  h, fed = np.zeros((2, 4, 3, 4), complex), np.zeros((2, 4, 3, 4), complex)
  out = np.zeros_like(y)
  for t in range(50):
    h = h + token.carried[:, t, :, None, None] * fed
    fed = np.einsum("brhs,brhp->bhsp", b[:, t], u[:, t])
    decay = np.exp(token.log_a[:, t, :, None] - 1j * token.angle[:, t])
    h = decay[..., None] * h + token.now[:, t, :, None, None] * fed
    read = np.einsum("brhs,bhsp->brhp", c[:, t].conj(), h).real
    out[:, t] = gate(variables["params"], read + u[:, t], token.z[:, t])
  assert np.abs(y).max() > 0.1
  np.testing.assert_allclose(y, out, atol=1e-5)
  turned = state.S[:, :, 0::2] + 1j * state.S[:, :, 1::2]
  np.testing.assert_allclose(turned * state.turn.conj()[..., None], h, atol=1e-5)


def gate(p, y, z):
  """W_out of the gated outputs, with the initial D, which is 1, and without a norm."""
  z = z[:, None] * p.get("mimo_z", np.ones(1))
  y = (p.get("mimo_o", np.ones(1)) * y * z / (1 + np.exp(-z))).sum(1)
  return y.reshape(len(y), -1) @ p["out_proj"]["kernel"]


def test_without_turns_and_with_one_weight_it_is_mamba_2():
  """lam = 1, theta = 0, no biases, and A = -1 for all tokens: the recurrence of Mamba-2, of normalised B and C."""
  module, variables = initial(8, state=6, head_size=4)
  p, at = variables["params"], columns(module)
  W = np.array(p["in_proj"]["kernel"])
  for name in ("lam", "A", "angle"):
    W[:, at[name]] = 0
  W[0, at["lam"]] = 50  # times an input of 1
  p["in_proj"]["kernel"], p["B_bias"], p["C_bias"] = W, 0 * p["B_bias"], 0 * p["C_bias"]
  x = np.array(jax.random.normal(jax.random.key(1), (2, 50, 8)))
  x[..., 0] = 1

  @functools.partial(jax.jit, compiler_options=quick())
  def run(x):
    token = module.apply(variables, x, method="_select")
    y, state = module.apply(variables, x, module.init_state(2, 50), method="prefill")
    dt = jax.nn.softplus(x @ W[:, at["dt"]] + p["dt_bias"])
    core = ssd(token.q[:, :, 0], token.k[:, :, 0], dt[..., None] * token.u, -dt, 0 * state.S)
    return y, state.S, token, core

  y, S, token, (core, last) = run(x)
  expected = np.stack([gate(p, (core + token.u)[:, t, None], token.z[:, t]) for t in range(50)], axis=1)
  assert np.abs(y).max() > 0.05
  np.testing.assert_allclose(y, expected, atol=2e-6)
  np.testing.assert_allclose(S, last, atol=2e-6)


@pytest.mark.parametrize("turning", [True, False])
def test_turns_tell_even_from_odd(turning):
  """With weights set by hand: each 1 turns the state by pi, so that its sign is the parity of a row of bits.

  Without turns no decay has a sign to change: the state of Mamba-2 stays as the first token left it.
  """
  module, variables = initial(4, expand=1, state=2, head_size=4, rope_fraction=1.0)
  p, at = variables["params"], columns(module)
  W = np.zeros_like(p["in_proj"]["kernel"])
  W[:3, at["z"]], W[:3, at["lam"]], W[:3, at["A"]] = 5, 50, -1e4
  W[0, at["u"]], W[1, at["angle"]] = 1, 50 * turning
  p["in_proj"]["kernel"], p["out_proj"]["kernel"] = W, np.eye(4, dtype=np.float32)
  p["dt_bias"], p["D"] = inverse_softplus(jnp.ones(1)), jnp.zeros(1)
  bits = np.random.default_rng(0).integers(0, 2, (3, 500))
  start, one, zero, _ = np.eye(4, dtype=np.float32)
  x = np.concatenate([np.tile(start, (3, 1, 1)), np.where(bits[..., None], one, zero)], axis=1)
  y = jax.jit(module.apply, compiler_options=quick())(variables, x)[..., 1:, 0]
  sign = (-1.0) ** np.cumsum(bits, axis=1) if turning else np.ones(bits.shape)
  np.testing.assert_allclose(y, 2 * sign * jax.nn.silu(5.0), rtol=0.06)


def test_steps_are_float32_for_bfloat16_inputs():
  """bfloat16 holds 0.1 + 1e-4 as 0.1; neither decays nor angles would see the difference."""
  module, variables = initial(8, state=4)
  x = jax.ShapeDtypeStruct((1, 1, 8), jnp.bfloat16)
  token = jax.eval_shape(lambda x: module.apply(variables, x, method="_select"), x)
  assert {name: z.dtype for name, z in token._asdict().items() if name != "z"} == {
    name: jnp.float32 for name in token._fields if name != "z"
  }
