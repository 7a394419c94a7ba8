"""Released checkpoints, in and out, without PyTorch and without pickle.

model, variables, config = hf.load("downloads/mamba-130m-hf")     # any family of interop/families
model.apply(variables, tokens)                                    # logits, b t v
hf.save("out", model, variables, config)                          # a folder that transformers loads
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from hybrids.model import Model
from interop import own, plan, tensors
from training import sharding

# bytes of one file, as transformers cuts them
SHARD = 5e9


def load(
  path: str | Path, dtype: str = "float32", mesh: jax.sharding.Mesh | None = None
) -> tuple[Model, dict[str, Any], dict[str, Any]]:
  """Reads a local folder with a config.json and safetensors, one tensor at a time.

  Args:
    dtype: "float32" or "bfloat16", in which the model computes and keeps its parameters; those that decide how long a
      state remembers stay float32.
    mesh: shards the variables as training does; each device's part is read by itself.

  Returns:
    The model, its variables, and the values of config.json.

  Raises:
    Mistake: the family or a key of the config is unknown, a file is damaged, or config and tensors disagree.
  """
  folder = Path(path).expanduser()
  config = tensors.read_json(folder / tensors.CONFIG)
  if config.get("model_type") == own.MODEL_TYPE:
    return own.load(folder, config, dtype)
  made = plan.make(config, str(folder / tensors.CONFIG), dtype)
  opened = tensors.Tensors(folder, getattr(made.family, "RENAMED", ()))
  try:
    made.check(opened)
    places = None if mesh is None else plan.leaves(sharding.of_variables(made.boxed, mesh))
    return made.model, made.fill(opened, places), config
  finally:
    opened.close()


def save(path: str | Path, model: Model, variables: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> None:
  """Writes a folder with a config.json and safetensors, which appears once it is complete.

  Args:
    config: the values of the config.json with which `load` found the model: the folder is then one that transformers
      loads. None writes our own names, which `load` alone reads, for any model.

  Raises:
    Mistake: the folder is not empty, or the model is not that of the config.
  """
  folder = Path(path).expanduser()
  if config is None or config.get("model_type") == own.MODEL_TYPE:
    own.save(folder, model, variables)
    return
  made = plan.make(config, str(folder / tensors.CONFIG), model.dtype)
  made.check_variables(variables)
  tensors.write(folder, {**config, "dtype": "float32"}, made.tensors(variables), SHARD)
