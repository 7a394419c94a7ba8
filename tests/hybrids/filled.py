"""Variables for a test, without compiling an initialiser: of the right shapes, and away from where they would start."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta


def filled(module, *inputs, **kwargs):
  """What `init` would return without boxes, with params around 0, or 1 for norms' scales; other collections are 0."""
  shapes = meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs, **kwargs))
  draw = np.random.default_rng(0).normal

  def value(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if not name.startswith("params"):
      return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(name.endswith("norm/scale") + 0.4 * draw(size=leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(value, shapes)
