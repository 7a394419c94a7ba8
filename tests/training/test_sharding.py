"""The mesh: eight devices compute what one computes, two processes what one does, and what does not fit is named."""

import json
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hybrids import recipes
from hybrids.mixer import build
from hybrids.model import build_model
from tests import child
from tests.quick import flags
from tests.training.sharded import DROPOUT_MESHES
from training import platform, sharding, state


def run(*processes):
  """Returns the lines of JSON of each: Gloo, which CPU processes talk through, prints too."""
  commands = (["-m", "tests.training.sharded", *map(str, args)] for args in processes)
  outputs = child.together(*commands, XLA_FLAGS=flags(), JAX_PLATFORMS="cpu")
  return [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out in outputs]


MIXTURES = [name for name in recipes.names(toys=True) if "'moe'" in str(recipes.get_recipe(name).model)]
SLOW = ("sequence", "language_model", "mixture", *MIXTURES)


@pytest.mark.parametrize("kind", ["toy", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_eight_devices_compute_what_one_does(kind):
  ((*accumulated, found),) = run(("mesh", kind))
  assert found["loss"] < 1e-5
  assert found["gradient"] < 1e-4
  assert found["eval"] < 1e-4
  if kind != "sequence":
    assert any("tensor" in spec and "fsdp" in spec for spec in found["specs"]), "the moments are not sharded"
  if kind == "toy":
    assert accumulated[0]["difference"] < 1e-6, "several batches are not one large batch"


@pytest.mark.slow
def test_every_mesh_drops_what_one_device_drops():
  (found,) = run(("dropout",))
  assert [mesh["mesh"] for mesh in found] == list(DROPOUT_MESHES)
  for mesh in found:
    assert mesh["dropped"] > 1e-2, "nothing was dropped"
    assert mesh["loss"] < 1e-5, mesh
    assert mesh["gradient"] < 1e-4, mesh


@pytest.mark.slow
def test_two_processes_compute_what_one_does():
  port = child.free_port()
  (alone,) = run(("processes", 0, 1, 0))[0]
  (together,), nothing = run(*(("processes", port, 2, index) for index in (0, 1)))
  assert not nothing, "process 1 has nothing to say"
  np.testing.assert_allclose(together["losses"], alone["losses"], rtol=1e-5)
  np.testing.assert_allclose(together["eval"], alone["eval"], rtol=1e-5)
  np.testing.assert_allclose(together["params"], alone["params"], atol=1e-4)


def test_one_size_may_be_left_open():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1}


@pytest.mark.parametrize(
  "sizes, words",
  [
    ({"data": 2}, ["mesh.data=2", "2 devices", "there are 1", "mesh.cpu_devices"]),
    ({"data": -1, "fsdp": -1}, ["at most one may be -1"]),
    ({"tensor": 0}, ["mesh.tensor=0"]),
    ({"tensor": 3}, ["multiple of 3"]),
  ],
)
def test_a_mesh_that_does_not_fit_is_named(sizes, words):
  with pytest.raises(ValueError) as error:
    sharding.make_mesh(**sizes, devices=jax.devices()[:1])
  assert all(word in str(error.value) for word in words), str(error.value)


def mesh_of(**sizes):
  """A mesh of sizes alone, for what only looks at them."""
  return jax.sharding.AbstractMesh(tuple(sizes.get(axis, 1) for axis in sharding.AXES), sharding.AXES)


def test_a_batch_that_does_not_divide_is_named():
  with pytest.raises(ValueError, match="data.batch=6 .*mesh.data=2 times mesh.fsdp=2.*multiple of 4"):
    sharding.check_batch(6, 8, mesh_of(data=2, fsdp=2))
  with pytest.raises(ValueError, match="data.length=9 .*mesh.sequence=2"):
    sharding.check_batch(8, 9, mesh_of(data=2, sequence=2))
  sharding.check_batch(8, 8, mesh_of(data=2, fsdp=2, sequence=2))


def test_a_dimension_that_does_not_divide_stays_whole():
  box = lambda shape, names: nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, "float32"), names)
  tree = {"odd": box((6, 5), ("embed", "vocab")), "even": box((3, 6, 4), ("layers", "embed", "inner")), "bare": 1}
  found = jax.tree.map(lambda s: s.spec, sharding.of_variables(tree, mesh_of(fsdp=2, tensor=2)))
  assert found == {
    "odd": PartitionSpec("fsdp", None),
    "even": PartitionSpec(None, "fsdp", "tensor"),
    "bare": PartitionSpec(),
  }


def test_fsdp_divides_large_arrays_whatever_their_axes_are_called():
  box = lambda shape, names: nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, "float32"), names)
  tree = {
    "beside tensor": box((4, 1024, 66), ("layers", "inner", None)),
    "longest": box((66, 1024), (None, None)),
    "next": box((1026, 1024), (None, None)),
    "small": box((400, 128, 64), ("layers", "inner", None)),
    "odd": box((1025, 1025), (None, None)),
  }
  found = jax.tree.map(lambda s: s.spec, sharding.of_variables(tree, mesh_of(fsdp=8, tensor=2)))
  assert found == {
    "beside tensor": PartitionSpec(None, ("tensor", "fsdp"), None),
    "longest": PartitionSpec(None, "fsdp"),
    "next": PartitionSpec(None, "fsdp"),
    "small": PartitionSpec(None, "tensor", None),
    "odd": PartitionSpec(None, None),
  }


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_fsdp_leaves_nothing_that_matters_whole(name):
  """Arrays that each of eight devices holds whole are less than a fiftieth of the parameters, or than a million."""
  recipe = recipes.get_recipe(name)
  model = build_model(recipe, **recipe.model)
  task = types.SimpleNamespace(head=recipe.head, features=recipe.features, vocab=recipe.vocab, length=recipe.length)
  params = state.variables_shape(model, task)["params"]
  places = jax.tree.leaves(sharding.of_variables(params, mesh_of(fsdp=8)))
  sizes = [leaf.size for leaf in jax.tree.leaves(params)]
  whole = [size for size, place in zip(sizes, places, strict=True) if place.is_fully_replicated]
  assert sum(whole) < max(0.02 * sum(sizes), 1e6), sorted(whole)[-9:]


def test_what_is_no_parameter_is_sharded_by_its_axes_too():
  """Decays of four heads, of one layer and of a stack of three."""
  spec = dict(name="lightning", heads=4)
  stack = build("stack", width=8, depth=3, pattern="l", letters={"l": spec})
  for model, axes in ((build(**spec, width=8), ("tensor",)), (stack, (None, "tensor"))):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 8), "float32"))
    (found,) = jax.tree.leaves(sharding.of_variables(shapes["buffers"], mesh_of(fsdp=2, tensor=2)))
    assert found.spec == PartitionSpec(*axes)


def test_several_processes_are_seen_in_the_environment():
  assert not platform.several_processes({})
  assert not platform.several_processes({"SLURM_NTASKS": "4"})
  assert platform.several_processes({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a[1-2]"})
  assert platform.several_processes({"TPU_WORKER_HOSTNAMES": "a,b"})
  assert not platform.several_processes({"TPU_WORKER_HOSTNAMES": "localhost"})
  with pytest.raises(ValueError, match="missing: --process"):
    platform.prepare(0, coordinator="localhost:1", processes=2)
