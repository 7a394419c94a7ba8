"""The kernels for one token on GPUs, without one: interpreted. None was ever run on a GPU."""

import jax
import pytest

from kernels.conv_step import conv_step
from kernels.selective_step import selective_step
from kernels.ssd_step import ssd_step
from scripts.benchmarks import steps
from tests.kernels import interpreters
from tests.kernels.compare import TOLERANCE, assert_close, interpreted_gpu
from tests.refused import refused


def assert_equals_the_reference(op, given, **arguments):
  run = lambda impl: jax.block_until_ready(jax.jit(lambda given: op(*given, **arguments, impl=impl))(given))
  with interpreters.interpreted_gpu(detect_races=True):
    got = run("pallas_gpu")
  assert_close(got, run("reference"), TOLERANCE["float32"])


# one block and several, one tap and several
@interpreted_gpu
@pytest.mark.parametrize("e, w, activation", [(5, 4, "silu"), (256, 2, "none")])
def test_conv_step_equals_the_reference(e, w, activation, on_gpu):
  *given, bias = steps.conv_arrays(2, e, w)
  bias = None if activation == "none" else bias
  assert_equals_the_reference(conv_step, given, bias=bias, activation=activation)


# channels that do not fill a block, and several blocks of them in each of several groups
@interpreted_gpu
@pytest.mark.parametrize("e, g, n", [(6, 2, 3), (200, 1, 16), pytest.param(512, 2, 20, marks=pytest.mark.slow)])
def test_selective_step_equals_the_reference(e, g, n, on_gpu):
  assert_equals_the_reference(selective_step, steps.selective_arrays(2, e, g, n))


# two and four heads a block, whole or filled up, of one group and of several; B and C of one block each and of two
@interpreted_gpu
@pytest.mark.parametrize(
  "h, p, g, k, norm, norm_groups, D_per",
  [
    (6, 5, 2, 3, "gate_first", 2, "head"),
    (4, 64, 1, 128, "norm_first", 1, "channel"),
    pytest.param(3, 20, 1, 140, "none", 1, "head", marks=pytest.mark.slow),
    pytest.param(8, 64, 2, 16, "gate_first", 1, "channel", marks=pytest.mark.slow),
  ],
)
def test_ssd_step_equals_the_reference(h, p, g, k, norm, norm_groups, D_per, on_gpu):
  given, layer = steps.ssd_arrays(2, h, p, g, k, norm, norm_groups, D_per=D_per)
  assert_equals_the_reference(ssd_step, given, **layer)


def test_steps_on_gpus_say_what_they_cannot_run(on_gpu):
  x, dt, A, B, C, D, z, h = steps.selective_arrays(2, 6, 2, 3)
  refused("pallas_gpu: the states are complex", selective_step, x, dt, A + 0j, B, C, D, z, h + 0j, impl="pallas_gpu")
  x, taps, kernel, _ = steps.conv_arrays(2, 5, 1)
  refused("pallas_gpu: a kernel of one tap carries none", conv_step, x, taps, kernel, impl="pallas_gpu")
  given, layer = steps.ssd_arrays(2, 2, 6, 1, 3, "gate_first", 4)
  refused("pallas_gpu: norm_groups=4 do not divide the 2 heads", ssd_step, *given, **layer, impl="pallas_gpu")
  given, layer = steps.ssd_arrays(2, 1, 65, 1, 3, "gate_first", 1)
  refused("pallas_gpu: heads have 65 channels; it knows 64 at most", ssd_step, *given, **layer, impl="pallas_gpu")
