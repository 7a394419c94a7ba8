"""Recipes at toy size on eight devices, against one: values of the loss and gradients of all parameters.

Run in a process of its own by test_sharding.py, with the names of recipes:

  JAX_NUM_CPU_DEVICES=8 python -m tests.hybrids.recipes_on_a_mesh jamba_toy mamba2_toy
"""

import sys

import jax
import numpy as np
from jax.sharding import NamedSharding

from hybrids.model import build_model
from hybrids.objective import measure
from hybrids.recipes import get_recipe
from tests.hybrids.filled import filled
from training import sharding

# rows over data and fsdp; heads, channels and experts over tensor
MESH = dict(data=2, fsdp=2, sequence=1, tensor=2)
ROWS, LENGTH = 4, 16


def batch_of(model, length):
  """Returns a batch of random numbers or tokens of the shapes that the model reads; all targets count."""
  rng = np.random.default_rng(0)

  def one(name, z):
    if name == "weights":
      return np.ones(z.shape, z.dtype)
    draw = rng.integers(0, 2, z.shape) if np.issubdtype(z.dtype, np.integer) else rng.standard_normal(z.shape)
    return draw.astype(z.dtype)

  return {name: one(name, z) for name, z in model.example(ROWS, length).items()}


def compare(name):
  """Holds the loss and its gradients on the mesh to those on one device."""
  recipe = get_recipe(name)
  model = build_model(recipe, **recipe.model)
  batch = batch_of(model, LENGTH if model.reads_pieces else recipe.length)
  variables = filled(model, batch["inputs"])
  loss = lambda params, rest, batch: measure(model, {"params": params, **rest}, batch)[0]
  run = lambda: jax.jit(jax.value_and_grad(loss))
  rest = dict(variables)
  params = rest.pop("params")
  want = jax.device_get(run()(params, rest, batch))
  mesh = sharding.make_mesh(**MESH)
  with sharding.active(mesh):
    boxed = jax.eval_shape(model.init, jax.random.key(0), batch["inputs"])
    places = sharding.of_variables(dict(boxed), mesh)["params"]
    on_rows = jax.tree.map(lambda z: jax.device_put(z, NamedSharding(mesh, jax.P(sharding.ROWS))), batch)
    got = jax.device_get(run()(jax.device_put(params, places), rest, on_rows))
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got)):
    size = max(np.abs(a).max(), 1e-3)
    assert np.abs(a - b).max() <= 1e-4 * size, f"{name} {jax.tree_util.keystr(path)}: {np.abs(a - b).max()} of {size}"
  cut = sum(not place.is_fully_replicated for place in jax.tree.leaves(places))
  assert cut, f"{name}: no parameter is divided"
  print(f"{name} equal; {cut} of {len(jax.tree.leaves(places))} parameters divided", flush=True)


if __name__ == "__main__":
  for argument in sys.argv[1:]:
    compare(argument)
