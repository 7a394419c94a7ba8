"""Turns a state into the named arrays of a checkpoint and back, and checks that they fit a run."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from mistake import Mistake


def by_path(state: Any) -> dict[str, Any]:
  """Returns the arrays of a tree by their paths."""
  pairs = jax.tree_util.tree_flatten_with_path(state)[0]
  leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
  assert len(leaves) == len(pairs), "two leaves of the state have the same path"
  return leaves


def is_key(x: Any) -> bool:
  """Returns whether an array holds random keys, which are stored as their data."""
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def describe(path: str, x: Any) -> dict[str, Any]:
  """Returns the shape and dtype of a leaf, as JSON; raises a Mistake where it is no jax array."""
  if not isinstance(x, (jax.Array, jax.ShapeDtypeStruct)):
    raise Mistake(f"state leaf {path!r} is {x!r} of type {type(x).__name__}; make it a jax array")
  return {"shape": list(x.shape), "dtype": str(x.dtype)}


def data(x: jax.Array) -> jax.Array:
  """Returns the array that a checkpoint stores for a leaf; a random key is stored as its data."""
  return jax.random.key_data(x) if is_key(x) else x


def data_struct(x: Any) -> jax.ShapeDtypeStruct:
  """Returns the shape, dtype and sharding of the array that is stored for a leaf."""
  sharding = x.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  plain = jax.eval_shape(data, jax.ShapeDtypeStruct(x.shape, x.dtype))
  return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=sharding)


def impl(x: jax.Array) -> dict[str, Any]:
  """Returns the implementation that makes random keys of their data; empty for other leaves."""
  return {"impl": str(jax.random.key_impl(x))} if is_key(x) else {}


def rebuild(like: Any, data: jax.Array | None, layout: Mapping[str, Any]) -> jax.Array:
  """Rebuilds a leaf from the array that was stored for it."""
  if data is None:  # Orbax cannot store arrays without elements
    return jax.numpy.zeros(like.shape, like.dtype)
  return jax.random.wrap_key_data(data, impl=layout["impl"]) if is_key(like) else data


def check_version(folder: str, saved: Iterable[str], wanted: Iterable[str]) -> None:
  """Raises a Mistake that names the converter where paths are saved as an older version did, and not wanted so."""
  any_of = lambda paths, heads: any(path.startswith(heads) for path in paths)
  gone, new = ("params/stack/", "opt/inner_state/"), ("opt/inner/", "buffers/batch_stats/")
  if any_of(saved, gone) and not any_of(wanted, gone) or any_of(wanted, new) and not any_of(saved, new):
    raise Mistake(
      f"checkpoint {folder} was stored by an older version, which named parameters or the optimizer's state otherwise; "
      "convert its run: python -m scripts.convert WORKDIR NEW_WORKDIR"
    )


def check(folder: str, saved: Mapping[str, dict], wanted: Mapping[str, dict]) -> None:
  """Raises a Mistake that names the first leaf which was saved otherwise than it is wanted."""
  show = lambda entry: f"{entry['dtype']}{entry['shape']}" if entry else "nothing"
  for path in [*wanted, *saved]:
    old, new = saved.get(path), wanted.get(path)
    if not old or not new or (old["shape"], old["dtype"]) != (new["shape"], new["dtype"]):
      raise Mistake(
        f"checkpoint {folder} does not fit: {path!r} is {show(old)} there and {show(new)} in this run. Use the "
        "settings the run was started with (config.json), or another workdir"
      )
