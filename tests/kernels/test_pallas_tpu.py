"""Kernels for TPUs without one: interpreted, with races detected, and lowered. None was ever run on a TPU."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import dispatch
from kernels.conv_step import conv_step
from kernels.conv_step import pallas_tpu as conv_step_tpu
from kernels.linear_scan import linear_scan
from kernels.linear_scan import pallas_tpu as linear_scan_tpu
from kernels.rg_lru import pallas_tpu as rg_lru_tpu
from kernels.rg_lru import rg_lru
from kernels.selective_scan import pallas_tpu as selective_scan_tpu
from kernels.selective_scan import selective_scan
from kernels.selective_step import pallas_tpu as selective_step_tpu
from kernels.selective_step import selective_step
from kernels.ssd import pallas_tpu as ssd_tpu
from kernels.ssd import ssd
from kernels.ssd_step import pallas_tpu as ssd_step_tpu
from kernels.ssd_step import ssd_step
from scripts.benchmarks import steps
from tests import child
from tests.kernels import interpreters, scans
from tests.kernels.compare import TOLERANCE, assert_close, assert_equals_the_reference
from tests.kernels.ops import OPS
from tests.refused import refused


def copy_all(x, y):
  """Both programs write the whole of y."""
  y[...] = x[...]


def read_too_early(x, y, buffer, arrived):
  transfer = pltpu.make_async_copy(x, buffer, arrived)
  transfer.start()
  y[...] = buffer[...]
  transfer.wait()


def run_raced(kernel):
  grid, spec, scratch = (2,), pl.BlockSpec((8, 128), lambda i: (0, 0)), ()
  if kernel is read_too_early:
    grid, spec = (1,), pl.BlockSpec(memory_space=pl.ANY)
    scratch = (pltpu.VMEM((8, 128), jnp.float32), pltpu.SemaphoreType.DMA)
  run = pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=[spec],
    out_specs=pl.BlockSpec((8, 128), lambda i: (0, 0)),
    out_shape=jax.ShapeDtypeStruct((8, 128), jnp.float32),
    scratch_shapes=scratch,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
  )
  jax.block_until_ready(jax.jit(run)(np.ones((8, 128), np.float32)))


@pytest.mark.parametrize("kernel", [copy_all, read_too_early])
def test_the_interpreter_reports_races(kernel):
  with pytest.raises(RuntimeError, match="RACE DETECTED"), interpreters.interpreted_tpu():
    run_raced(kernel)


@pytest.mark.slow
# ends within a chunk and within a tile, fewer channels than a register has and more than a block
@pytest.mark.parametrize(
  "t, n, constant, dtype, masked",
  [
    (19, 3, False, "float32", True),
    (19, 3, True, "complex64", True),
    (41, 130, False, "float32", True),
    (33, 128, False, "complex64", False),
    (1, 7, True, "float32", False),
    (32, 128, True, "float32", True),
  ],
)
def test_linear_scan_equals_the_reference(t, n, constant, dtype, masked, monkeypatch, on_tpu):
  monkeypatch.setattr(linear_scan_tpu, "TOKENS", 16)
  monkeypatch.setattr(linear_scan_tpu, "CHANNELS", 128 if dtype == "float32" else 256)
  assert_equals_the_reference(linear_scan, scans.linear(2, t, n, constant, dtype), t, masked)


@pytest.mark.slow
# ends within a tile and within a chunk, fewer channels than lanes and more; in bfloat16 both round to 8 bits
@pytest.mark.parametrize(
  "t, e, dtype, masked, tolerance",
  [
    (35, 3, "float32", True, TOLERANCE["float32"]),
    (41, 130, "bfloat16", True, 2**-7),
    (1, 5, "float32", False, TOLERANCE["float32"]),
    (64, 256, "float32", False, TOLERANCE["float32"]),
  ],
)
def test_rg_lru_equals_the_reference(t, e, dtype, masked, tolerance, monkeypatch, on_tpu):
  monkeypatch.setattr(rg_lru_tpu, "TOKENS", 32)
  monkeypatch.setattr(rg_lru_tpu, "CHANNELS", 128)
  assert_equals_the_reference(rg_lru, scans.gated(t, e, dtype), t, masked, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
  "op, arrays",
  [
    (linear_scan, scans.linear(2, 30, 3, False, "float32")),
    (linear_scan, scans.linear(2, 30, 3, True, "complex64")),
    (rg_lru, scans.gated(30, 3)),
  ],
)
def test_a_document_that_is_not_finite_spoils_no_other_of_its_tile(op, arrays, on_tpu):
  """Of three documents, the second has a token of NaN and cotangents of NaN."""
  reset = jnp.isin(jnp.arange(30), jnp.array([5, 13]))[None].repeat(2, 0)
  second = (np.arange(30) >= 5) & (np.arange(30) < 13)
  late = second & (np.arange(30) >= 10)
  tokens = [np.shape(z)[:2] == (2, 30) for z in arrays]

  @jax.jit
  def run(arrays, bar):
    (y, last), pull = jax.vjp(lambda *z: op(*z, reset=reset), *arrays)
    gradients = pull((y * 0 + bar, last * 0 + 1))
    return (y, *(z for z, token in zip(gradients, tokens) if token)), (last, gradients[-1])

  spoil = lambda z, where: np.where(where[:, None], np.asarray(np.nan, z.dtype), z)
  bar = np.ones((2, 30, 3), np.float32)
  want, want_states = run(arrays, bar)
  spoilt = [spoil(z, late) if token else z for z, token in zip(arrays, tokens)]
  got, got_states = run(spoilt, spoil(bar, second))
  for one, other in zip(got, want):
    np.testing.assert_array_equal(np.where(second[:, None], 0, one), np.where(second[:, None], 0, other))
  for one, other in zip(got_states, want_states):
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
# groups that do not fill the lanes, several blocks of channels, states that do and do not fill registers; softplus,
# skip and gate or some of them
@pytest.mark.parametrize(
  "t, e, g, n, masked, narrow, around",
  [
    (19, 4, 2, 3, True, "x z", "softplus D z"),
    (41, 256, 1, 16, True, "", "softplus D z"),
    (32, 130, 1, 8, False, "x", "z"),
    (33, 4, 1, 4, False, "x dt z", "softplus D z"),
    (9, 4, 1, 4, False, "", "softplus D"),
    (1, 4, 1, 4, False, "", ""),
  ],
)
def test_selective_scan_equals_the_reference(t, e, g, n, masked, narrow, around, monkeypatch, on_tpu):
  monkeypatch.setattr(selective_scan_tpu, "TOKENS", 16)
  monkeypatch.setattr(selective_scan_tpu, "CHANNELS", 128)
  given, softplus = scans.around(scans.selective(t, e, g, n), narrow, around)
  assert_equals_the_reference(functools.partial(selective_scan, softplus=softplus), given, t, masked)


@pytest.mark.slow
# a group's heads in one program and in several, groups of heads and one for all
@pytest.mark.parametrize(
  "t, h, p, g, k, masked",
  [(19, 4, 5, 2, 3, True), (41, 4, 64, 1, 16, True), (32, 3, 8, 3, 8, False), (1, 2, 4, 1, 4, False)],
)
def test_ssd_equals_the_reference(t, h, p, g, k, masked, monkeypatch, on_tpu):
  monkeypatch.setattr(ssd_tpu, "TOKENS", 16)
  monkeypatch.setattr(ssd_tpu, "HEADS", 2)
  assert_equals_the_reference(ssd, tuple(OPS["ssd"].draw(t, h=h, p=p, g=g, k=k).values()), t, masked)


def assert_step_equals_the_reference(op, given, **arguments):
  run = lambda impl: jax.block_until_ready(jax.jit(lambda given: op(*given, **arguments, impl=impl))(given))
  assert_close(run("pallas_tpu"), run("reference"), TOLERANCE["float32"])


@pytest.mark.slow
# one block and several, of rows and of channels; one tap and several
@pytest.mark.parametrize("b, e, w, activation", [(2, 5, 4, "silu"), (9, 256, 2, "none")])
def test_conv_step_equals_the_reference(b, e, w, activation, monkeypatch, on_tpu):
  monkeypatch.setattr(conv_step_tpu, "CHANNELS", 128)
  *given, bias = steps.conv_arrays(b, e, w)
  bias = None if activation == "none" else bias
  assert_step_equals_the_reference(conv_step, given, bias=bias, activation=activation)


@pytest.mark.slow
# channels that do not fill lanes, and several blocks of them in each of several groups
@pytest.mark.parametrize("e, g, n", [(4, 1, 3), (200, 1, 16), (512, 2, 5)])
def test_selective_step_equals_the_reference(e, g, n, monkeypatch, on_tpu):
  monkeypatch.setattr(selective_step_tpu, "NUMBERS", 128 * 8)
  assert_step_equals_the_reference(selective_step, steps.selective_arrays(2, e, g, n))


@pytest.mark.slow
# heads in one block and in several, in one group and in several
@pytest.mark.parametrize(
  "h, p, g, k, norm, norm_groups, D_per",
  [
    (4, 5, 2, 3, "gate_first", 2, "head"),
    (8, 64, 2, 16, "norm_first", 1, "channel"),
    (4, 64, 1, 16, "none", 1, "head"),
  ],
)
def test_ssd_step_equals_the_reference(h, p, g, k, norm, norm_groups, D_per, monkeypatch, on_tpu):
  monkeypatch.setattr(ssd_step_tpu, "HEADS", 2)
  given, layer = steps.ssd_arrays(2, h, p, g, k, norm, norm_groups, D_per=D_per)
  assert_step_equals_the_reference(ssd_step, given, **layer)


def test_a_kernel_for_tpus_says_why_it_cannot_run(monkeypatch):
  given = jax.tree.map(jnp.asarray, scans.linear(1, 8, 4, True, "float32"))
  with pytest.raises(ValueError, match=r"pallas_tpu: it needs a TPU, not a cpu.*other choices: \['auto', 'cpp', 'xla'"):
    linear_scan(*given, impl="pallas_tpu")
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  with jax.enable_x64(True), pytest.raises(ValueError, match=r"computes in 32 bits, not in \['float64'\]"):
    linear_scan(*(z.astype("float64") for z in given), impl="pallas_tpu")


def test_selective_scan_on_tpus_says_what_it_cannot_run(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  x, dt, A, B, C, h = map(jnp.asarray, scans.selective(8, 4, 1, 4))
  with pytest.raises(ValueError, match="pallas_tpu: disc='zoh'; it knows 'euler' alone"):
    selective_scan(x, dt, A, B, C, h, disc="zoh", impl="pallas_tpu")
  refused("pallas_tpu: the states are complex", selective_scan, x, dt, A + 0j, B, C, h, impl="pallas_tpu")
  with pytest.raises(ValueError, match=r"it reads float32 and bfloat16, not \['float16'\]"):
    selective_scan(x, dt.astype("float16"), A, B, C, h, impl="pallas_tpu")


def test_steps_on_tpus_say_what_they_cannot_run(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  x, dt, A, B, C, D, z, h = steps.selective_arrays(2, 6, 2, 3)
  with pytest.raises(ValueError, match="pallas_tpu: 2 groups of 3 channels; of several it wants multiples of 128"):
    selective_step(x, dt, A, B, C, D, z, h, impl="pallas_tpu")
  with pytest.raises(ValueError, match="pallas_tpu: the states are complex"):
    selective_step(x, dt, A + 0j, B[:, :1], C[:, :1], D, z, h + 0j, impl="pallas_tpu")
  x, taps, kernel, _ = steps.conv_arrays(2, 5, 1)
  refused("pallas_tpu: a kernel of one tap carries none", conv_step, x, taps, kernel, impl="pallas_tpu")
  given, layer = steps.ssd_arrays(2, 2, 6, 1, 3, "gate_first", 4)
  refused("pallas_tpu: norm_groups=4 do not divide the 2 heads", ssd_step, *given, **layer, impl="pallas_tpu")


def test_kernels_that_no_tpu_has_run_are_taken_by_name_only(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  cases = {
    linear_scan: scans.linear(1, 8, 4, True, "float32"),
    rg_lru: scans.gated(8, 4),
    selective_scan: scans.selective(8, 4, 1, 4),
    ssd: tuple(OPS["ssd"].draw(8).values()),
  }
  for op, given in cases.items():
    assert "pallas_call" not in str(jax.make_jaxpr(op)(*given)), op.__name__
    with dispatch.use("pallas_tpu"):
      assert "pallas_call" in str(jax.make_jaxpr(lambda *given, op=op: op(*given))(*given)), op.__name__


@pytest.mark.parametrize("which", [(), pytest.param(("every",), marks=pytest.mark.slow)])
def test_kernels_lower_for_tpus_at_real_sizes_and_on_a_mesh(which):
  child.python("-m", "tests.kernels.lower_for_tpu", *which, JAX_NUM_CPU_DEVICES="8")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the compiler for TPUs is in libtpu")
def test_kernels_compile_for_tpus_at_real_sizes():
  child.python("-m", "tests.kernels.compile_for_tpu")
