"""What attention to chosen tokens owes, beside the same attention to all."""

import jax
import jax.numpy as jnp
import numpy as np


def check_all_are_seen(module, kept, plain, x, is_index):
  """As many tokens as are chosen are all seen, and one more token than that is not, where it was not chosen."""
  own = {name: leaf for name, leaf in kept["params"].items() if not is_index(name)}
  all_seen = jax.jit(plain.apply)({"params": own}, x)
  y = jax.jit(module.apply)(kept, x)
  few = jax.jit(module.apply)(kept, x[:, :4])
  np.testing.assert_allclose(few, all_seen[:, :4], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(y[:, :5], all_seen[:, :5], rtol=1e-5, atol=1e-6)
  assert np.abs(y - all_seen)[:, 7:].max() > 1e-3


def check_no_gradient(module, kept, x, is_index):
  """The choice has no gradient, so that the indexer's parameters have none, and all others do."""
  gradient = jax.jit(jax.grad(lambda kept: jnp.sum(module.apply(kept, x) ** 2)))(kept)["params"]
  for name, leaves in gradient.items():
    zero = all(not np.any(leaf) for leaf in jax.tree.leaves(leaves))
    assert zero == is_index(name), name
