"""Contexts on disk, to go on with another day: one .npz file, read without pickle."""

import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from inference import whole_file
from inference.context import ENDLESS, SMALLEST, Context, make
from mistake import Mistake

FORMAT = "ssm-jax context 1"
META = "meta"
# what numpy, zip and JSON raise for a file that is something else
DAMAGED = (
  *(zipfile.BadZipFile, zlib.error, AttributeError, EOFError, LookupError, NotImplementedError, RuntimeError),
  *(TypeError, ValueError),
)
# entries of each array that identify the parameters
ENTRIES = 8
# characters of a description that a message shows
SHOWN = 60


def save(path: str | Path, model: nn.Module, variables: Mapping[str, Any], context: Context) -> None:
  """Writes a context, with what identifies the model, to `path`; the file appears when it is complete.

  The keys of draws are not in it: going on gives the same tokens with the same `rng`.
  """
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(context)]
  room = int(np.asarray(context.room)[0])
  meta = {
    "format": FORMAT,
    "model": _description(model),
    "parameters": _fingerprint(model, variables),
    "batch": len(context.last),
    "room": SMALLEST if room == ENDLESS else room,
  }
  # as bytes: the format knows no bfloat16
  arrays: dict[str, Any] = {str(number): np.frombuffer(leaf.tobytes(), np.uint8) for number, leaf in enumerate(leaves)}
  arrays[META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
  with whole_file.writing(path, binary=True) as file:
    np.savez(file, **arrays)


def restore(path: str | Path, model: nn.Module, variables: Mapping[str, Any]) -> Context:
  """Reads a context that `save` has written.

  Raises:
    ValueError: the file is no context or is damaged, or it is of another model or of other parameters. A part of each
      array is compared, so that parameters which differ elsewhere alone are not noticed.
  """
  if not Path(path).is_file():
    what = "is no file" if Path(path).exists() else "does not exist"
    raise Mistake(f"state {path} {what}; give a file that was written by saving a context")
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays[META].tobytes())
    kinds = {"format": str, "model": dict, "parameters": str, "batch": int, "room": int}
    known = meta["format"] == FORMAT and all(isinstance(meta[key], kind) for key, kind in kinds.items())
  except DAMAGED:
    # numpy's own words advise to read a pickle, which may run anything
    raise Mistake(
      f"state {path} cannot be read: it is damaged or no saved context; give a file that was written by saving one"
    ) from None
  if not known:
    raise Mistake(f"state {path} is no context of this version, {FORMAT!r}")
  description = _description(model)
  differ = [name for name in description if meta["model"].get(name) != description[name]]
  if differ:
    name = differ[0]
    its, ours = _differing(str(meta["model"].get(name)), description[name])
    raise Mistake(
      f"state {path} is of another model: its {name} has {its}, this one's has {ours}; open the run that it came from"
    )
  if meta["parameters"] != _fingerprint(model, variables):
    raise Mistake(f"state {path} is of the same architecture with other parameters; open the run and step it came from")
  shapes, tree = jax.tree.flatten(jax.eval_shape(partial(make, model, meta["batch"], meta["room"])))
  leaves = [_leaf(path, arrays.get(str(number)), shape) for number, shape in enumerate(shapes)]
  return jax.tree.unflatten(tree, leaves)


def _leaf(path: str | Path, raw: np.ndarray | None, shape: jax.ShapeDtypeStruct) -> jax.Array:
  if raw is None or raw.nbytes != shape.size * shape.dtype.itemsize:
    raise Mistake(f"state {path} is damaged: an array is missing or has another size")
  return jnp.asarray(np.frombuffer(raw.tobytes(), shape.dtype).reshape(shape.shape))


def _description(model: nn.Module) -> dict[str, str]:
  """Returns the fields of a model as text."""
  own = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
  return {name: str(_plain(getattr(model, name))) for name in own}


def _differing(*texts: str) -> list[str]:
  """Returns a few words of each text, from the entry in which they first differ."""
  same = os.path.commonprefix(texts)
  start = max(same.rfind(sign) + len(sign) if sign in same else 0 for sign in ("{", ", '"))
  # the quotation mark belongs to the entry
  start -= same[:start].endswith("'")
  return [text[start : start + SHOWN] + (" …" if len(text) > start + SHOWN else "") for text in texts]


def _plain(value: Any) -> Any:
  return {key: _plain(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


def _fingerprint(model: nn.Module, variables: Mapping[str, Any]) -> str:
  """Returns a checksum of the first entries of each array, whether the layers are stacked or apart."""

  @jax.jit
  def first(variables):
    return [leaf.ravel()[:ENTRIES] for leaf in jax.tree.leaves(model.apart(variables))]

  total = hashlib.sha256()
  for entries in jax.device_get(first(variables)):
    total.update(str((entries.dtype, entries.shape)).encode() + entries.tobytes())
  return total.hexdigest()
