"""The ops for one token equal those for sequences at length one, and what mixers put around them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from kernels import dispatch
from kernels.conv_step import conv_step
from kernels.gated_norm import gated_rms_norm
from kernels.selective_scan import selective_scan
from kernels.selective_step import selective_step
from kernels.short_conv import short_conv
from kernels.ssd import ssd
from kernels.ssd_step import ssd_step
from kernels.ssd_step.over_heads import cut, join
from scripts.benchmarks.steps import conv_arrays, selective_arrays, ssd_arrays
from tests.kernels.compare import assert_close
from tests.refused import refused


@pytest.mark.parametrize("w, activation", [(1, "none"), (2, "silu"), (4, "silu")])
def test_conv_step_is_short_conv_on_one_token(w, activation):
  x, taps, kernel, bias = conv_arrays(2, 5, w)
  y, last = short_conv(x[:, None], kernel, taps, bias=bias)
  want = (jax.nn.silu(y) if activation == "silu" else y)[:, 0], last
  assert_close(conv_step(x, taps, kernel, bias=bias, activation=activation), want, 1e-6)


@pytest.mark.parametrize("disc", ["euler", "zoh"])
@pytest.mark.parametrize("spectrum", ["real", "complex"])
def test_selective_step_is_selective_scan_on_one_token(spectrum, disc):
  x, dt, A, B, C, D, z, h = selective_arrays(2, 6, 2, 3)
  A = A + 1j * jnp.arange(3) if spectrum == "complex" else A
  h = h.astype(A.dtype)
  y, last = selective_scan(x[:, None], dt[:, None], A, B[:, None], C[:, None], h, disc=disc)
  want = (y[:, 0] + D * x) * jax.nn.silu(z), last
  assert_close(selective_step(x, dt, A, B, C, D, z, h, disc=disc), want, 1e-5)


@pytest.mark.parametrize("norm, norm_groups", [("gate_first", 2), ("norm_first", 1), ("none", 1)])
def test_ssd_step_is_ssd_on_one_token(norm, norm_groups):
  given, layer = ssd_arrays(2, 4, 5, 2, 3, norm, norm_groups)
  x, z, dt, taps, S = given
  mixed, taps = conv_step(x, taps, layer["kernel"], bias=layer["bias"], activation="silu")
  u, B, C = mixed[:, :20].reshape(2, 4, 5), mixed[:, 20:26].reshape(2, 2, 3), mixed[:, 26:].reshape(2, 2, 3)
  token = C[:, None], B[:, None], (dt[..., None] * u)[:, None], (dt * layer["A"])[:, None]
  y, S = ssd(*token, S)
  y = (y[:, 0] + layer["D"] * u).reshape(2, -1)
  if norm == "none":
    y = y * jax.nn.silu(z)
  else:
    y = gated_rms_norm(y, jax.nn.silu(z), layer["scale"], order=norm, groups=norm_groups, eps=1e-5)
  assert_close(ssd_step(*given, **layer), (y, taps, S), 1e-5)


def test_steps_keep_the_dtypes_of_outputs_and_taps_and_states_in_float32():
  narrow = lambda tree: jax.tree.map(lambda m: m.astype(jnp.bfloat16), tree)
  x, taps, kernel, bias = conv_arrays(2, 5, 4)
  y, last = conv_step(narrow(x), taps, kernel, bias=bias)
  assert (y.dtype, last.dtype) == (jnp.bfloat16, jnp.float32)
  *given, h = selective_arrays(2, 6, 2, 3)
  y, last = selective_step(*narrow(given), h)
  assert (y.dtype, last.dtype) == (jnp.bfloat16, jnp.float32)
  (x, z, dt, taps, S), layer = ssd_arrays(2, 4, 5, 2, 3, "gate_first", 2)
  y, *states = ssd_step(narrow(x), narrow(z), dt, taps, S, **layer)
  assert [m.dtype for m in (y, *states)] == [jnp.bfloat16, jnp.float32, jnp.float32]


def test_steps_say_what_does_not_fit():
  x, taps, kernel, bias = conv_arrays(2, 5, 4)
  refused("2 taps carried for a kernel of width 4; it needs 3", conv_step, x, taps[:, 1:], kernel)
  refused(r"activation='gelu'; choose from \['none', 'silu'\]", conv_step, x, taps, kernel, activation="gelu")
  x, dt, A, B, C, D, z, h = selective_arrays(2, 6, 2, 3)
  refused("5 channels in 2 groups", selective_step, x[:, :5], dt[:, :5], A[:5], B, C, D[:5], z[:, :5], h[:, :5])
  refused("disc='tustin'", selective_step, x, dt, A, B, C, D, z, h, disc="tustin")
  given, layer = ssd_arrays(2, 4, 5, 2, 3, "gate_first", 2)
  with pytest.raises(ValueError, match=r"norm='layer'; choose from \['gate_first', 'norm_first', 'none'\]"):
    ssd_step(*given, **{**layer, "norm": "layer"})
  refused("norm='gate_first' needs a scale", ssd_step, *given, **{**layer, "scale": None})


@pytest.mark.optimized
def test_taps_that_are_cut_for_a_mesh_are_not_copied_without_one():
  """The compiler undoes one with the other."""
  again = jax.jit(lambda taps: jnp.sin(join(*cut(taps, 4, k=3, p=5))))
  taps = np.ones((2, 3, 32), np.float32)
  assert "concatenate" in again.lower(taps).as_text()
  assert "concatenate(" not in again.lower(taps).compile().as_text()


@pytest.mark.parametrize("platform, primitive", [("gpu", "mpmd_map"), ("tpu", "pallas_call")])
@pytest.mark.parametrize("name, kernels", [("mamba", ["conv_step", "selective_step"]), ("mamba2", ["ssd_step"])])
def test_a_step_of_mamba_takes_kernels_by_name_only(name, kernels, platform, primitive, on_gpu, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  layer, x = build(name, width=8), jnp.ones((2, 8))
  state, variables = layer.init_state(2, 1), jax.eval_shape(layer.init, jax.random.key(0), x[:, None])
  step = lambda variables: layer.apply(variables, x, state, method="step")
  assert primitive not in str(jax.make_jaxpr(step)(variables))
  with dispatch.use(f"pallas_{platform}"):
    # another function, or JAX finds the trace that it has
    text = str(jax.make_jaxpr(lambda variables: step(variables))(variables))
  assert [kernel for kernel in kernels if f"name={kernel}" in text] == kernels, text
  assert platform == "gpu" or text.count("pallas_call[") == len(kernels), text
