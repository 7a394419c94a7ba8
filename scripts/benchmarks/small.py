"""Small models that are timed beside the same ones of `transformers`: recipes at width 256 and four layers."""

from typing import Any

import jax
import jax.numpy as jnp

from hybrids.model import Model, build_model
from hybrids.recipes import griffin, jamba, mamba, mamba2, rwkv, transformer
from hybrids.recipes.recipe import Recipe

VOCAB, WIDTH = 256, 256
SIZES: dict[str, Any] = dict(width=WIDTH, depth=4)
ATTENTION: dict[str, Any] = dict(heads=4, inner=2 * WIDTH)
# kind -> a recipe and its fields; `scripts.peers.hugging_face.CONFIGS` has the same, with as many parameters
MODELS: dict[str, Recipe] = {
  "Mamba": Recipe(mamba.model, SIZES, vocab=VOCAB),
  "Mamba-2": Recipe(mamba2.model, SIZES, vocab=VOCAB),
  "Jamba": Recipe(jamba.model, SIZES | ATTENTION | dict(kv_heads=4, pattern="m-m-a-m-"), vocab=VOCAB),
  "Llama": Recipe(transformer.llama, SIZES | ATTENTION, vocab=VOCAB),
  "RWKV-4": Recipe(rwkv.rwkv4, SIZES, vocab=VOCAB),
  "RecurrentGemma": Recipe(griffin.model, SIZES | dict(heads=4), vocab=VOCAB),
}
# tokens that a cache may have
ROOM = 2**16


def build(recipe: Recipe, dtype: str = "float32", **changes: Any) -> Model:
  """Returns the model of a recipe, with fields of its body changed."""
  sections = recipe.model
  sections["body"] = sections["body"] | changes
  return build_model(recipe, **sections, max_len=ROOM, dtype=dtype)


def fresh(model: Model) -> Any:
  """Returns the parameters of a model."""
  return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
