"""LinOSS: small sizes, parameter count, oracle, refusals; the energy of each step, its bounds, and initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.linoss import DISCS, LinOSS
from tests.initial import made, normal, spread, uniform

SMALL = {"": dict(state=3), "imex": dict(state=3, disc="imex"), "damped": dict(state=3, disc="damped")}
ORACLE = {
  "": dict(state=5),
  "imex": dict(state=4, disc="imex", activation="none"),
  # some of its A are below their range
  "damped": dict(state=6, disc="damped", r_min=0.5, max_phase=0.1),
}
SLOW = ("imex",)
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(disc="zoh"), "disc='zoh'; choose from ['im', 'imex', 'damped']"),
  (dict(activation="glu"), "activation='glu'; choose from ['half_glu1'"),
  (dict(disc="damped", r_min=0.9, r_max=0.5), "r_min=0.9, r_max=0.5: a ring needs"),
  (dict(disc="damped", max_phase=4.0), "max_phase=4.0; phases of pairs need 0 < max_phase <= pi"),
  (dict(r_min=0.5), "r_min=0.5, disc='im'; only 'damped' starts on a ring"),
]
INITIAL = [
  (
    dict(width=200, state=300, disc=disc),
    {"B_re B_im": uniform(200**-0.5), "C_re C_im": uniform(300**-0.5), "D": normal(1, 0.15)}
    | {"gate out_proj": uniform(200**-0.5), "gate/bias out_proj/bias": uniform(200**-0.5, 0.1)}
    | ({"logit_dt": normal(0.5, 0.15)} if disc == "damped" else {"A logit_dt": spread(0, 0.5, 1, 0.08, of=np.asarray)}),
  )
  for disc in DISCS
]
TRAINED = {"slow": {"A", "G", "logit_dt"}}


def count(d, state, disc="im"):
  """A and dt, and G if damped; B, C; D; the two maps with bias."""
  return (3 if disc == "damped" else 2) * state + 4 * state * d + d + 2 * d * (d + 1)


def built(disc, state, **values):
  """A mixer of width 1 without a gate, whose parameters have these values; the rest of them is 1."""
  module, variables = made(LinOSS, 1, state=state, disc=disc, activation="none")
  ones = jax.tree.map(jnp.ones_like, variables["params"])
  known = {name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), ones[name].shape) for name, value in values.items()}
  return module, ones | known


def steps(module, params, state, t):
  """The states z and q "t n", in double precision, of t tokens without an input, from the real part alone."""
  start = module.init_state(1, t)._replace(h=jnp.zeros((1, 2 * module.state, 2)).at[0, : module.state].set(state))
  step = lambda h, _: (lambda h: (h, h.h[0, : module.state]))(
    module.apply({"params": params}, jnp.zeros((1, 1)), h, method="step")[1]
  )
  h = jax.jit(lambda: jax.lax.scan(step, start, length=t)[1])()
  return np.moveaxis(np.asarray(h, float), -1, 0)


def test_energy_stays_or_goes_as_each_step_says():
  """z^2 + A q^2: "im" leaves 1/(1 + dt^2 A) of it; "imex" keeps it, less dt A z q."""
  A, logit = np.array([0.01, 0.5, 3.0]), np.array([-2.0, 0.0, 1.0])
  dt, start = 1 / (1 + np.exp(-logit)), jnp.array([[1.0, 0.5], [-1.0, 2.0], [0.3, 1.0]])
  z, q = steps(*built("im", 3, A=A, logit_dt=logit), start, 9)
  energy = z**2 + A * q**2
  np.testing.assert_allclose(energy[1:] / energy[:-1], np.broadcast_to(1 / (1 + dt**2 * A), (8, 3)), rtol=1e-5)
  z, q = steps(*built("imex", 3, A=A, logit_dt=logit), start, 1000)
  energy = z**2 + A * q**2 - dt * A * z * q
  np.testing.assert_allclose(energy, np.broadcast_to(energy[0], (1000, 3)), rtol=3e-4)


def test_whatever_is_learned_no_damped_oscillator_grows():
  """From A far below to far above its range, from no damping to much, from the shortest to the longest step."""
  A, G, logit = (grid.ravel() for grid in np.meshgrid([-1e4, 0.0, 1e4], [-1.0, 1e-6, 0.3, 1e3], [-60.0, -3.0, 40.0]))
  module, params = built("damped", 36, A=A, G=G, logit_dt=logit)
  z, q = steps(module, params, jnp.array([1.0, 0.0]), 300)
  # where both eigenvalues are -1, z_t is +-(2t - 1) and q_t +-t dt; never more
  np.testing.assert_allclose(np.abs(z).max(), 599, rtol=1e-3)
  np.testing.assert_allclose(np.abs(q).max(), 300, rtol=1e-3)
  loss = lambda params: jnp.sum(module.apply({"params": params}, jnp.ones((1, 20, 1))) ** 2)
  assert all(jnp.isfinite(gradient).all() for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


@pytest.mark.parametrize("disc", ["im", "imex"])
def test_without_a_spring_an_input_is_summed_up_twice(disc):
  """A = 0 is where a step has one eigenvector alone: z_t = dt t, q_t = dt^2 t (t + 1)/2; so have gradients values."""
  module, params = built(disc, 1, A=-1.0, logit_dt=0.0, D=0.0, B_im=0.0)
  y = lambda params: module.apply({"params": params}, jnp.ones((1, 100, 1)))[0, :, 0]
  t = np.arange(1, 101)
  np.testing.assert_allclose(jax.jit(y)(params), t * (t + 1) / 8, rtol=1e-5)
  slope = jax.jit(jax.grad(lambda params: y(params)[-1]))(params)["logit_dt"]
  np.testing.assert_allclose(slope, 100 * 101 * 0.5 * 0.25, rtol=1e-5)


@pytest.mark.parametrize("r_min, r_max, max_phase", [(0.9, 1.0, np.pi), (0.5, 0.99, np.pi / 12)])
def test_damped_eigenvalues_start_uniform_over_the_ring(r_min, r_max, max_phase):
  """Squared radii and phases are uniform, so their sorted values lie on a line (2,000 draws: within 0.04)."""
  fields = dict(state=2000, disc="damped", r_min=r_min, r_max=r_max, max_phase=max_phase)
  p = jax.tree.map(lambda value: np.asarray(value, float), made(LinOSS, 2, **fields)[1]["params"])
  dt = 1 / (1 + np.exp(-p["logit_dt"]))
  S = 1 + dt * p["G"]
  # the matrix of D-LinOSS: of what is left of z and q, and of what each gives the other
  M = np.stack([1 / S, -dt * p["A"] / S, dt / S, 1 - dt**2 * p["A"] / S], axis=-1).reshape(-1, 2, 2)
  lam = np.linalg.eigvals(M)[:, 0]
  area = (np.abs(lam) ** 2 - r_min**2) / (r_max**2 - r_min**2)
  phase = np.abs(np.angle(lam)) / max_phase
  for values in (area, phase):
    np.testing.assert_allclose(np.sort(values), (np.arange(2000) + 0.5) / 2000, atol=0.04)
  assert abs(np.corrcoef(area, phase)[0, 1]) < 0.08
  # and none is clipped
  edge = 2 * np.sqrt(S)
  assert ((1 + S - edge <= dt**2 * p["A"] + 1e-6) & (dt**2 * p["A"] <= 1 + S + edge + 1e-6)).all()
