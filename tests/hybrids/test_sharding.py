"""A stack on eight devices equals the stack on one; in a process of its own, since a process has one set of devices."""

import pytest

from tests import child

PROGRAM = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import flax.linen as nn, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from hybrids import mixer as mixer_lib
mixer_lib.ROOTS += ("tests",)
from hybrids.body.stack import Stack
from tests.hybrids.filled import filled
from tests.hybrids.test_stack import MIXERS
from training.sharding import RULES

stack = Stack(width=8, depth=5, pattern="d-", letters=MIXERS, remat="dots")
x = jax.random.normal(jax.random.key(0), (8, 4, 8))
loss = lambda variables, x: jnp.sum(jnp.sin(stack.apply(variables, x)))
run = lambda: jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
variables = filled(stack, x)
expected = run()(variables, x)
boxed = jax.eval_shape(stack.init, jax.random.key(0), x)
mesh = jax.make_mesh((2, 2, 1, 2), ("data", "fsdp", "sequence", "tensor"), axis_types=(AxisType.Auto,) * 4)
with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
  places = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
  made = jax.jit(lambda key: nn.meta.unbox(stack.init(key, x)), out_shardings=places)(jax.random.key(0))
  kernel = made["params"]["-"]["mixer"]["in_proj"]["kernel"]
  assert kernel.sharding.spec == P(None, "fsdp", "tensor"), kernel.sharding
  found = run()(jax.device_put(variables, places), jax.device_put(x, NamedSharding(mesh, P(("data", "fsdp")))))
found, expected = jax.device_get((found, expected))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
print("equal")
"""


@pytest.mark.slow
def test_a_stack_on_a_mesh_equals_the_stack_on_one_device():
  assert child.python("-c", PROGRAM).strip() == "equal"


@pytest.mark.slow
def test_long_sequences_on_devices_that_share_the_time_equal_one_device():
  command = "-m", "tests.hybrids.models_on_a_mesh", "4096", "mamba", "hybrid"
  for line in child.python(*command).splitlines():
    share = float(line.split()[-3])
    assert share < 1 / 7, line


@pytest.mark.slow
def test_a_hybrid_with_experts_on_a_mesh_equals_one_device():
  command = "-m", "tests.hybrids.recipes_on_a_mesh", "jamba_toy"
  out = child.python(*command, JAX_NUM_CPU_DEVICES="8", JAX_PLATFORMS="cpu")
  assert out.startswith("jamba_toy equal; 27 of 30 parameters divided"), out
