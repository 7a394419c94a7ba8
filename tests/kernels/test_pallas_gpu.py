"""Kernels for GPUs without one: interpreted, and lowered. None was ever run on a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import dispatch, gpu
from kernels.linear_scan import linear_scan, pallas_gpu
from kernels.rg_lru import pallas_gpu as rg_lru_gpu
from kernels.rg_lru import rg_lru
from kernels.selective_scan import gpu_tiling, selective_scan
from kernels.ssd import ssd
from tests import child
from tests.kernels import interpreters, scans
from tests.kernels.compare import (
  DIGIT,
  TOLERANCE,
  assert_close,
  draw,
  interpreted_gpu,
  masks,
  spoil,
  values_and_gradients,
)


def read_too_early(x, y, slot, ready):
  plgpu.copy_gmem_to_smem(x, slot, ready.at[0])
  y[...] = gpu.lanes(slot[...])
  plgpu.barrier_wait(ready.at[0])


def send_too_early(x, y, slot, ready):
  """What the thread wrote is not yet to be seen by the copy engine."""
  del ready
  slot[...] = gpu.lanes(x[...])
  plgpu.copy_smem_to_gmem(slot, y)
  plgpu.wait_smem_to_gmem(0)


def write_too_early(x, y, slot, ready):
  """The copy engine still reads."""
  del ready
  slot[...] = gpu.lanes(x[...])
  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(slot, y)
  slot[...] = gpu.lanes(x[...])
  plgpu.wait_smem_to_gmem(0)


def write_all(x, y, slot, ready):
  """Both blocks write the whole of y."""
  del slot, ready
  y[...] = gpu.lanes(x[...])


@interpreted_gpu
@pytest.mark.parametrize("kernel", [read_too_early, send_too_early, write_too_early, write_all])
def test_the_interpreter_reports_races(kernel):
  vector = jax.ShapeDtypeStruct((gpu.LANES,), jnp.float32)
  scratch = plgpu.SMEM(vector.shape, vector.dtype), gpu.barriers(1)
  run = gpu.kernel(kernel, vector, scratch, {"e": 2 if kernel is write_all else 1}, kernel.__name__)
  with pytest.raises(RuntimeError, match="RACE DETECTED"), interpreters.interpreted_gpu(detect_races=True):
    jax.block_until_ready(jax.jit(run)(np.ones(vector.shape, np.float32)))


def cut_time(monkeypatch, segments):
  monkeypatch.setattr(gpu, "segments", lambda programs, tiles: min(segments, tiles))


def compare(op, given, where, races=False, tolerance=TOLERANCE["float32"]):
  """Values and gradients against the definition; NaN past the lengths."""
  want = values_and_gradients(functools.partial(op, impl="reference"), given, **where)
  if "lengths" in where:
    t = where["reset"].shape[1]
    by_token = lambda z: z is not None and z.ndim > 2 and z.shape[1] == t
    given = tuple(spoil(where["lengths"], z) if by_token(z) else z for z in given)
  with interpreters.interpreted_gpu(detect_races=races):
    got = values_and_gradients(functools.partial(op, impl="pallas_gpu"), given, **where)
  assert_close(got, want, tolerance, narrow=DIGIT)


# ends within a tile, fewer channels than a block has and more, tiles fewer than slots and more, time cut or not
@interpreted_gpu
@pytest.mark.parametrize(
  "t, n, constant, dtype, masked, segments",
  [
    (13, 130, False, "float32", True, 1),
    (11, 3, True, "complex64", True, 3),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        (33, 128, False, "complex64", False, 2),
        (1, 7, True, "float32", False, 1),
        (32, 129, True, "float32", True, 1),
        (41, 6, False, "float32", True, 5),
      ]
    ),
  ],
)
def test_linear_scan_equals_the_reference(t, n, constant, dtype, masked, segments, monkeypatch, on_gpu):
  monkeypatch.setattr(pallas_gpu, "TOKENS", 4 if dtype == "float32" else 8)
  cut_time(monkeypatch, segments)
  compare(linear_scan, scans.linear(2, t, n, constant, dtype), masks(t) if masked else {})


# ends within a tile, fewer channels than a block has and more, time cut or not; in bfloat16 both round to 8 bits
@interpreted_gpu
@pytest.mark.parametrize(
  "t, e, dtype, masked, segments, tolerance",
  [
    (13, 3, "float32", True, 2, TOLERANCE["float32"]),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        (41, 130, "bfloat16", True, 1, 2**-7),
        (27, 6, "bfloat16", False, 3, 2**-7),
        (1, 7, "float32", False, 1, TOLERANCE["float32"]),
      ]
    ),
  ],
)
def test_rg_lru_equals_the_reference(t, e, dtype, masked, segments, tolerance, monkeypatch, on_gpu):
  monkeypatch.setattr(rg_lru_gpu, "BYTES", 16)
  cut_time(monkeypatch, segments)
  compare(rg_lru, scans.gated(t, e, dtype), masks(t) if masked else {}, tolerance=tolerance)


# groups, more channels than a block has, states of a part of a matrix and of several, time cut or not; softplus, skip
# and gate or some of them
@interpreted_gpu
@pytest.mark.parametrize(
  "t, e, g, n, masked, tokens, segments, narrow, around",
  [
    (11, 6, 2, 10, True, 4, 2, "x z", "softplus D z"),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        (21, 130, 1, 3, True, 16, 1, "", "softplus D z"),
        (14, 4, 1, 20, True, 4, 3, "x dt z", "softplus D z"),
        (9, 8, 2, 8, False, 8, 1, "dt", "z"),
        (9, 4, 1, 16, False, 4, 1, "", "softplus D"),
        (1, 4, 1, 16, False, 4, 1, "", ""),
      ]
    ),
  ],
)
def test_selective_scan_equals_the_reference(t, e, g, n, masked, tokens, segments, narrow, around, monkeypatch, on_gpu):
  monkeypatch.setattr(gpu_tiling, "TOKENS", tokens)
  cut_time(monkeypatch, segments)
  given, softplus = scans.around(scans.selective(t, e, g, n), narrow, around)
  compare(functools.partial(selective_scan, softplus=softplus), given, masks(t) if masked else {})


@interpreted_gpu
@pytest.mark.slow
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize(
  "op, given, module, tile",
  [
    (linear_scan, scans.linear(2, 18, 5, False, "float32"), pallas_gpu, {"TOKENS": 4}),
    (rg_lru, scans.gated(18, 5), rg_lru_gpu, {"BYTES": 16}),
    (selective_scan, scans.around(scans.selective(18, 4, 2, 16), "", "softplus D z")[0], gpu_tiling, {"TOKENS": 4}),
  ],
)
def test_scans_have_no_races(op, given, module, tile, segments, monkeypatch, on_gpu):
  for name, size in tile.items():
    monkeypatch.setattr(module, name, size)
  cut_time(monkeypatch, segments)
  op = functools.partial(op, softplus=True) if op is selective_scan else op
  compare(op, given, masks(18), races=True)


def ssd_arrays(b, t, h, p, g, k, dtype=jnp.bfloat16):
  rng = np.random.default_rng(t)
  q, keys, v = (draw(rng, shape, dtype) for shape in ((b, t, g, k), (b, t, g, k), (b, t, h, p)))
  return q, keys, v, -rng.uniform(0, 0.3, (b, t, h)).astype("float32"), draw(rng, (b, h, k, p), "float32")


def assert_rounded(got, want):
  """Off by no more than rounding to bfloat16 explains.

  Once rounded a number is off by 2^-8 at most, 0.4 of that on average (root mean square). A result has five such on its
  way at most: factors of two products, one of them a state that others made, and what is given back. In squares they
  add up to 0.9 times 2^-8. Sums are in float32.
  """
  size = lambda z: np.sqrt(np.mean(np.square(np.asarray(z, np.float64))))
  for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert (g.shape, g.dtype) == (w.shape, w.dtype)
    error = size(np.asarray(g, np.float64) - np.asarray(w, np.float64))
    assert error <= 2**-8 * max(size(w), 1e-3), f"{g.shape} is off by {error} of {size(w)}"


# a chunk that is not full, after others and alone; channels and entries that fill squares or not; time cut or not
@interpreted_gpu
@pytest.mark.parametrize(
  "b, t, h, p, g, k, masked, segments",
  [
    (2, 67, 2, 3, 1, 5, True, 2),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [(1, 130, 4, 64, 2, 128, False, 1), (2, 5, 1, 100, 1, 70, True, 1), (1, 256, 1, 64, 1, 16, False, 3)]
    ),
  ],
)
def test_ssd_equals_the_reference(b, t, h, p, g, k, masked, segments, monkeypatch, on_gpu):
  cut_time(monkeypatch, segments)
  given, where = ssd_arrays(b, t, h, p, g, k), masks(t) if masked else {}
  want = values_and_gradients(functools.partial(ssd, impl="reference"), given, **where)
  if masked:
    given = tuple(spoil(where["lengths"], z) if z.shape[1] == t else z for z in given)
  with interpreters.interpreted_gpu(detect_races=True):
    got = values_and_gradients(functools.partial(ssd, impl="pallas_gpu"), given, **where)
  assert_rounded(got, want)


def test_ssd_on_gpus_says_what_it_cannot_run(on_gpu, monkeypatch):
  with pytest.raises(ValueError, match=r"pallas_gpu: tensor cores multiply bfloat16, and q and k are \['float32'\]"):
    ssd(*map(jnp.asarray, ssd_arrays(1, 8, 1, 4, 1, 4, "float32")), impl="pallas_gpu")
  with pytest.raises(ValueError, match="a state has 129 entries, and registers hold 128 at most"):
    ssd(*map(jnp.asarray, ssd_arrays(1, 8, 1, 4, 1, 129)), impl="pallas_gpu")
  monkeypatch.setattr(gpu, "compute_capability", lambda: 10.0)
  with pytest.raises(ValueError, match="it multiplies as GPUs of compute capability 9 do; this one has 10.0"):
    ssd(*map(jnp.asarray, ssd_arrays(1, 8, 1, 4, 1, 4)), impl="pallas_gpu")


@pytest.mark.parametrize(
  "programs, tiles, segments",
  [(160, 128, 1), (67, 128, 1), (66, 128, 2), (24, 128, 5), (1, 4096, 32), (1, 7, 1), (1, 9, 2)],
)
def test_time_is_cut_where_blocks_are_too_few(programs, tiles, segments):
  assert gpu.segments(programs, tiles) == segments


def test_a_kernel_for_gpus_says_why_it_cannot_run(monkeypatch):
  given = jax.tree.map(jnp.asarray, scans.linear(1, 8, 4, True, "float32"))
  with pytest.raises(ValueError, match=r"pallas_gpu: it needs a GPU, not a cpu.*other choices: \['auto', 'cpp', 'xla'"):
    linear_scan(*given, impl="pallas_gpu")
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(gpu, "compute_capability", lambda: 8.0)
  with pytest.raises(ValueError, match=r"compute capability 9 or more; this one has 8.0"):
    linear_scan(*given, impl="pallas_gpu")
  monkeypatch.setattr(gpu, "compute_capability", lambda: 9.0)
  with jax.enable_x64(True), pytest.raises(ValueError, match=r"computes in 32 bits, not in \['float64'\]"):
    linear_scan(*(z.astype("float64") for z in given), impl="pallas_gpu")


def test_selective_scan_on_gpus_says_what_it_cannot_run(on_gpu):
  x, dt, A, B, C, h = map(jnp.asarray, scans.selective(8, 4, 1, 4))
  with pytest.raises(ValueError, match="pallas_gpu: disc='zoh'; it knows 'euler' alone"):
    selective_scan(x, dt, A, B, C, h, disc="zoh", impl="pallas_gpu")
  with pytest.raises(ValueError, match="pallas_gpu: the states are complex"):
    selective_scan(x, dt, A + 0j, B, C, h, impl="pallas_gpu")
  with pytest.raises(ValueError, match=r"it reads float32 and bfloat16, not \['float16'\]"):
    selective_scan(x, dt.astype("float16"), A, B, C, h, impl="pallas_gpu")
  with pytest.raises(ValueError, match="a state has 65 entries, and registers hold 64 at most"):
    selective_scan(*map(jnp.asarray, scans.selective(8, 4, 1, 65)), impl="pallas_gpu")


def test_kernels_that_no_gpu_has_run_are_taken_by_name_only(on_gpu):
  cases = {
    linear_scan: scans.linear(1, 8, 4, True, "float32"),
    rg_lru: scans.gated(8, 4),
    selective_scan: scans.selective(8, 4, 1, 4),
    ssd: tuple(map(jnp.asarray, ssd_arrays(1, 8, 1, 4, 1, 4))),
  }
  for op, given in cases.items():
    assert "copy_gmem_to_smem" not in str(jax.make_jaxpr(op)(*given)), op.__name__
    with dispatch.use("pallas_gpu"):
      # a function of its own, since what was traced is kept
      assert "copy_gmem_to_smem" in str(jax.make_jaxpr(lambda *given, op=op: op(*given))(*given)), op.__name__


@pytest.mark.slow
@pytest.mark.parametrize("which", [(), ("every",)])
def test_kernels_lower_for_gpus_at_real_sizes_and_on_a_mesh(which):
  child.python("-m", "tests.kernels.lower_for_gpu", *which, JAX_NUM_CPU_DEVICES="8")
