"""Small language models of three kinds, recurrent, attention and both, that say something worth comparing."""

import functools

import jax
import jax.numpy as jnp

from hybrids.model import Model

LETTERS = {
  "m": {"name": "mamba", "state": 4},
  "a": {"name": "softmax", "heads": 2},
  "w": {"name": "softmax", "heads": 2, "window": 4, "position": "rope"},
}
# a hybrid has both, and a ring of keys and values
PATTERNS = {"mamba": "mm", "attention": "aa", "hybrid": "maw"}
VOCAB = 11


def language_model(pattern: str = "ma", **kwargs) -> Model:
  body = {"name": "stack", "depth": len(pattern), "pattern": pattern, "letters": LETTERS}
  return Model(**{"vocab": VOCAB, "width": 8, "body": body} | kwargs)


def variables_of(model: Model, seed: int = 3) -> dict:
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
  # far from uniform, so that a wrong state shows in the tokens
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(tree, [x + jax.random.normal(key, x.shape) for x, key in zip(leaves, keys)])


@functools.cache
def made(kind: str, seed: int = 3) -> tuple[Model, dict]:
  """Returns a model of PATTERNS and variables for it."""
  model = language_model(PATTERNS[kind])
  return model, variables_of(model, seed)
