"""Dense, norms and the short convolution: values, dtypes, initial values, logical axes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers import (
  BatchNorm,
  Dense,
  GatedRMSNorm,
  HeadNorm,
  LayerNorm,
  RMSNorm,
  ShortConv,
  make_norm,
  make_token_norm,
  project,
)
from layers.initializers import inverse_softplus, log_step, log_uniform, softplus_step, uniform_fan_in
from layers.lengths import blank_past, last_of
from layers.param import Adapted
from layers.sizes import largest_divisor
from tests.refused import refused

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 5, 6))


@pytest.mark.parametrize("layer", [Dense(4, use_bias=True), RMSNorm(), LayerNorm(), BatchNorm()])
def test_layers_return_the_dtype_of_their_input(layer):
  variables = nn.unbox(layer.init(KEY, X))
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  assert layer.apply(variables, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
  with jax.enable_x64(True):
    assert layer.apply(variables, jnp.asarray(X, jnp.float64)).dtype == jnp.float64


def test_dense_names_its_axes():
  params = Dense(4, use_bias=True, axes=("heads", "kv")).init(KEY, X)["params"]
  assert (params["kernel"].names, params["bias"].names) == (("heads", "kv"), ("kv",))
  assert params["kernel"].value.shape == (6, 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_has_the_gradients_of_a_matrix_product(dtype):
  """In the input's dtype for the input, and for the kernel summed up in the kernel's own."""
  x, W, weights = X.astype(dtype), jax.random.normal(KEY, (6, 4)), jax.random.normal(jax.random.key(2), (2, 5, 4))
  got = jax.grad(lambda x, W: jnp.sum(project(x, W, x.dtype) * weights), argnums=(0, 1))(x, W)
  assert [z.dtype for z in got] == [x.dtype, jnp.float32]
  exact = weights @ W.T, jnp.einsum("btd,bte->de", X, weights)
  for z, expected in zip(got, exact):
    np.testing.assert_allclose(np.asarray(z, np.float32), expected, rtol=1e-5, atol=1e-5 if dtype == "float32" else 0.1)


def test_rms_norm_adds_a_bias_where_asked():
  module = RMSNorm(use_bias=True)
  params = {"scale": jnp.arange(6.0), "bias": jnp.arange(6.0) - 2}
  y, plain = module.apply({"params": params}, X), RMSNorm().apply({"params": {"scale": params["scale"]}}, X)
  np.testing.assert_allclose(y, plain + params["bias"], rtol=1e-6)


def test_a_gate_comes_before_or_after_the_norm():
  z = jax.random.normal(jax.random.key(3), X.shape)
  root = lambda y: np.sqrt(np.square(y).mean(-1))
  gate_first, _ = GatedRMSNorm("gate_first", eps=0.0).init_with_output(KEY, 1e-3 * X, z)
  np.testing.assert_allclose(root(gate_first), 1, rtol=1e-5)
  gated = X * jax.nn.silu(z)
  np.testing.assert_allclose(gate_first, gated / root(gated)[..., None], rtol=1e-4)
  norm_first, _ = GatedRMSNorm("norm_first", eps=0.0, groups=3).init_with_output(KEY, 1e-3 * X, z)
  by_group = (norm_first / jax.nn.silu(z)).reshape(2, 5, 3, 2)
  np.testing.assert_allclose(root(by_group), 1, rtol=1e-5)


def test_what_a_norm_cannot_do_is_named():
  refused("order='first'; choose from", GatedRMSNorm, "first")
  refused("groups=4 do not divide the 6 features", lambda: GatedRMSNorm("gate_first", groups=4).init(KEY, X, X))
  refused("6 heads of 6 channels have one each", lambda: HeadNorm(6).init(KEY, X))


def test_head_sizes_divide():
  assert [largest_divisor(n, 64) for n in (1536, 96, 16, 67)] == [64, 48, 16, 1]


def test_norms_give_the_moments_they_promise():
  """To rounding at any scale, in bfloat16 through float32."""
  y, _ = RMSNorm(eps=0.0).init_with_output(KEY, 1e-3 * X)
  np.testing.assert_allclose(np.square(y).mean(-1), 1, rtol=1e-5)
  y, _ = LayerNorm(eps=0.0).init_with_output(KEY, 1e3 * X + 50)
  np.testing.assert_allclose(y.mean(-1), 0, atol=1e-4)
  np.testing.assert_allclose(y.std(-1), 1, rtol=1e-4)
  assert isinstance(make_norm("layer", eps=1e-6), LayerNorm)
  refused(r"no norm 'batsch'; choose from \['batch', 'layer', 'rms'\]", make_norm, "batsch")


@pytest.mark.parametrize(
  "norm", [RMSNorm(eps=0), LayerNorm(eps=0), HeadNorm(2, eps=0), GatedRMSNorm("norm_first", eps=0)]
)
def test_zeros_stay_zeros_without_an_eps(norm):
  """Those of the padding: the scale has the gradient of the other rows."""
  gated = lambda x: (x, x) if isinstance(norm, GatedRMSNorm) else (x,)
  both, variables = jnp.stack([X[0], jnp.zeros_like(X[0])]), nn.unbox(norm.init(KEY, *gated(X)))
  y, pull = jax.vjp(lambda v, x: norm.apply(v, *gated(x)), variables, both)
  np.testing.assert_array_equal(y[1], 0)
  gradient, in_x = pull(jnp.stack([X[1], jnp.zeros_like(X[1])]))
  alone = jax.vjp(lambda v: norm.apply(v, *gated(X[:1])), variables)[1](X[1:])[0]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), gradient, alone)
  np.testing.assert_array_equal(in_x[1], 0)


def batch_norm(momentum=0.9):
  """Returns ours and Flax's, with parameters and statistics."""
  params = {"scale": jnp.arange(6.0) - 1, "bias": jnp.linspace(-1, 1, 6)}
  stats = {"mean": jnp.arange(6.0), "var": jnp.linspace(0.1, 3, 6)}
  ours = make_norm("batch", eps=1e-3, momentum=momentum)
  return ours, nn.BatchNorm(epsilon=1e-3, momentum=momentum), {"params": params, "batch_stats": stats}


def test_batch_norm_is_flax_s_with_stored_statistics():
  """For a sequence, a token at a time, and where the collection could be written."""
  ours, theirs, variables = batch_norm()
  expected = theirs.apply(variables, X, use_running_average=True)
  y, changed = ours.apply(variables, X, mutable=["batch_stats"])
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(ours.apply(variables, X[:, 2]), y[:, 2])
  np.testing.assert_array_equal(ours.apply(variables, X, None, method="of_batch"), y)
  jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])
  np.testing.assert_array_equal(BatchNorm(eps=0.0).init_with_output(KEY, X)[0], X)


@pytest.mark.parametrize("lengths", [None, [2, 4]])
def test_batch_norm_learns_the_statistics_of_valid_tokens_as_flax_s(lengths):
  ours, theirs, variables = batch_norm(0.95)
  x = 3 * X[:2] + 1
  valid = None if lengths is None else np.arange(x.shape[1])[None, :, None] < np.array(lengths)[:, None, None]
  expected, after = theirs.apply(variables, x, use_running_average=False, mask=valid, mutable=["batch_stats"])
  y, changed = ours.apply(
    variables, x, None if lengths is None else jnp.array(lengths), method="of_batch", mutable=["batch_stats"]
  )
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), changed["batch_stats"], after["batch_stats"])
  nothing = ours.apply(variables, x, jnp.zeros(2, int), method="of_batch", mutable=["batch_stats"])[1]
  jax.tree.map(np.testing.assert_array_equal, nothing["batch_stats"], variables["batch_stats"])
  refused("norm 'batch' learns in branches", make_token_norm, "batch")
  refused("BatchNorm: momentum=1", make_norm, "batch", momentum=1)


def test_short_conv_steps_equal_the_call():
  layer = ShortConv(6, taps=3)
  variables = jax.jit(layer.init)(KEY, X, layer.init_taps(2))
  taps = jax.random.normal(jax.random.key(2), (2, 2, 6))
  y, last = jax.jit(layer.apply)(variables, X, taps)
  step = jax.jit(functools.partial(layer.apply, method="step"))
  for t in range(X.shape[1]):
    y_t, taps = step(variables, X[:, t], taps)
    np.testing.assert_allclose(y_t, y[:, t], atol=1e-6)
  np.testing.assert_allclose(taps, last)


def test_taps_of_a_dilated_convolution_are_so_many_tokens_apart():
  layer, kernel = ShortConv(6, taps=3, dilation=2, use_bias=False), jax.random.normal(jax.random.key(3), (3, 6))
  taps = jax.random.normal(jax.random.key(2), (2, 4, 6))
  before = np.concatenate([taps, X], axis=1)
  y, last = layer.apply({"params": {"kernel": kernel}}, X, taps)
  expected = sum(kernel[i] * before[:, 2 * i : 2 * i + X.shape[1]] for i in range(3))
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(last, before[:, -4:])
  step, _ = layer.apply({"params": {"kernel": kernel}}, X[:, 0], taps, method="step")
  np.testing.assert_allclose(step, y[:, 0], rtol=1e-5, atol=1e-6)


def test_rms_norm_takes_the_mean_of_each_group():
  params = {"scale": jax.random.normal(jax.random.key(1), (6,))}
  y = RMSNorm(groups=3).apply({"params": params}, X)
  apart = RMSNorm(use_scale=False).apply({}, X.reshape(*X.shape[:-1], 3, 2)).reshape(X.shape)
  np.testing.assert_allclose(y, apart * params["scale"], rtol=1e-6)
  refused("RMSNorm: groups=4 do not divide the 6 features", RMSNorm(groups=4).apply, {"params": params}, X)


def test_short_conv_refuses_no_taps():
  refused("taps=0; it needs at least 1", lambda: ShortConv(6, taps=0).init(KEY, X, jnp.zeros((2, 0, 6))))
  refused("dilation=0; it needs at least 1", lambda: ShortConv(6, dilation=0).init(KEY, X, jnp.zeros((2, 0, 6))))


def test_inverse_softplus_inverts_softplus():
  y = jnp.array([1e-6, 1e-4, 0.1, 1.0, 30.0, 1e4])
  np.testing.assert_allclose(jax.nn.softplus(inverse_softplus(y)), y, rtol=1e-5)


def test_initial_steps_are_log_uniform():
  for dt in (jnp.exp(log_step(1e-3, 1e-1)(KEY, (20000,))), jax.nn.softplus(softplus_step(1e-3, 1e-1)(KEY, (20000,)))):
    assert dt.min() >= 0.99e-3
    assert dt.max() <= 1.01e-1
    np.testing.assert_allclose(np.log10(np.quantile(dt, [0.25, 0.5, 0.75])), [-2.5, -2, -1.5], atol=0.03)
  floored = jax.nn.softplus(softplus_step(1e-3, 1e-1, floor=0.05)(KEY, (1000,)))
  assert floored.min() >= 0.0499
  refused("dt_min=0.1, dt_max=0.01", log_step, 0.1, 0.01)
  refused("low=2, high=1", log_uniform, 2, 1)


def test_uniform_fan_in_has_pytorchs_bounds():
  kernel = uniform_fan_in()(KEY, (64, 500))
  np.testing.assert_allclose([kernel.min(), kernel.max()], [-0.125, 0.125], rtol=1e-2)
  halved = uniform_fan_in(16, gain=0.5)(KEY, (5000,))
  np.testing.assert_allclose([halved.min(), halved.max()], [-0.125, 0.125], rtol=1e-2)


def test_blank_past_stops_nan_in_values_and_gradients():
  lengths = jnp.array([2, 5])
  x = jnp.where((jnp.arange(5) < lengths[:, None])[..., None], X, jnp.nan)
  weights = jnp.ones((6, 3))
  gradient = jax.grad(lambda w: (blank_past(x, lengths) @ w).sum())(weights)
  assert np.isfinite(gradient).all()
  assert not blank_past(x, lengths)[0, 2:].any()
  assert blank_past(x, None) is x


def test_the_last_token_of_each_row():
  z, before = jnp.arange(12.0).reshape(3, 4, 1), -jnp.ones((3, 1))
  np.testing.assert_array_equal(last_of(z, before, None)[:, 0], [3, 7, 11])
  np.testing.assert_array_equal(last_of(z, before, jnp.array([0, 1, 9]))[:, 0], [-1, 4, 11])


@pytest.mark.parametrize("tokens, multiplied_out", [(1, False), (50, True)])
def test_an_adapted_map_is_multiplied_out_for_many_tokens_alone(tokens, multiplied_out):
  rng = np.random.default_rng(0)
  shapes = (tokens, 6), (6, 10), (6, 2), (2, 10)
  x, W, A, B = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
  run = lambda x: Dense(10).apply({"params": {"kernel": Adapted(W, A, B)}}, x)
  np.testing.assert_allclose(run(x), x @ (W + A @ B), rtol=1e-5, atol=1e-5)
  made = [variable.aval.shape for equation in jax.make_jaxpr(run)(x).eqns for variable in equation.outvars]
  assert (W.shape in made) == multiplied_out
