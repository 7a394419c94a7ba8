"""Any model trained here as one folder: safetensors or npz under our own names, and a config.json that rebuilds it."""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from hybrids import mixer as mixer_lib
from hybrids.model import Model, build_model
from interop import plan, tensors
from interop.tensors import Tensors, some
from mistake import Mistake

MODEL_TYPE = "state-space-models-jax"
NPZ = "model.npz"
SIZES = ("vocab", "features", "classes")


def save(
  folder: Path, model: Model, variables: Mapping[str, Any], beside: Sequence[Path] = (), form: str = "safetensors"
) -> None:
  """Writes the folder; see `interop.hf.save`."""
  config = {"model_type": MODEL_TYPE, "model": section(model), **{name: getattr(model, name) for name in SIZES}}
  try:
    json.dumps(config)
  except TypeError as error:
    raise Mistake(
      f"the model's section cannot be written ({error}); give mixers by their names, not as classes"
    ) from None
  leaves = {name: np.asarray(leaf) for name, leaf in plan.leaves(variables).items()}
  if form == "safetensors":
    tensors.write(folder, config, iter(leaves.items()), 0, beside)
    return
  with tensors.new_folder(folder) as partial:
    # NumPy's files know no bfloat16
    np.savez(partial / NPZ, **{name: leaf.astype(np.float32) for name, leaf in leaves.items()})  # type: ignore[arg-type]
    tensors.write_beside(partial, config, beside)


class Arrays:
  """The arrays of a folder's model.npz, with what `load` asks of `Tensors`; nothing is unpickled.

  Raises:
    Mistake: when made, if it cannot be read.
  """

  def __init__(self, folder: Path):
    try:
      with np.load(folder / NPZ, allow_pickle=False) as file:
        self._arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
      raise Mistake(f"{folder / NPZ} cannot be read: {error}; save it again") from None
    self.shapes = {name: array.shape for name, array in self._arrays.items()}

  def read(self, name: str) -> np.ndarray:
    """Returns an array."""
    return self._arrays[name]

  def check_floats(self, names: Iterable[str]) -> None:
    """Raises a Mistake where one of the arrays holds no floating point numbers."""
    if wrong := [name for name in names if self._arrays[name].dtype.kind != "f"]:
      raise Mistake(f"{NPZ}: these hold no floating point numbers: {some(wrong)}")

  def close(self) -> None:
    """Does nothing: all has been read."""


def load(folder: Path, config: dict[str, Any], dtype: str) -> tuple[Model, dict[str, Any], dict[str, Any]]:
  """Reads the folder; see `interop.hf.load`. A task's length counts for a model that reads whole rows alone."""
  where = folder / tensors.CONFIG
  missing = [key for key in ("model", *SIZES) if key not in config]
  if missing or not isinstance(config["model"], Mapping):
    raise Mistake(f"{where} of a {MODEL_TYPE} folder needs 'model' and {', '.join(map(repr, SIZES))}")
  fields = {**config["model"], "dtype": dtype, "param_dtype": dtype}
  sizes = SimpleNamespace(head="lm", length=1, **{name: config[name] for name in SIZES})
  model = build_model(sizes, **fields)
  opened = Arrays(folder) if (folder / NPZ).is_file() else Tensors(folder)
  try:
    inputs = model.example(1, 1)["inputs"]
    shapes = plan.leaves(meta.unbox(jax.eval_shape(model.init, jax.random.key(0), inputs)))
    if wrong := set(shapes) ^ set(opened.shapes):
      raise Mistake(f"{folder} does not hold the model of its config.json: {some(wrong)} are on one side alone")
    opened.check_floats(shapes)
    bad = [f"{name} {opened.shapes[name]}, not {leaf.shape}" for name, leaf in shapes.items()
           if opened.shapes[name] != leaf.shape]  # fmt: skip
    if bad:
      raise Mistake(f"{folder}: these tensors have other shapes than the config says: {some(bad)}")
    variables: dict[str, Any] = {}
    for name, leaf in shapes.items():
      plan.put(variables, name, jnp.asarray(opened.read(name), leaf.dtype))
  finally:
    opened.close()
  return model, variables, config


def section(model: Model) -> dict[str, Any]:
  """Returns the model section of a config that makes this model."""
  return {name: _plain(getattr(model, name)) for name in mixer_lib.fields(Model) if name not in SIZES}


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
