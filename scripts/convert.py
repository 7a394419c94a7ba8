"""Reads a run that an older version stored otherwise, and writes it as one of today into another folder.

  python -m scripts.convert WORKDIR OUT [--step N]

The newest checkpoint, or that of --step, is written with parameters, statistics and the optimizer's moments under the
names of today; config, data facts and metrics go along, so that the run goes on in OUT. WORKDIR stays as it is. Older
are runs from before models were nested specs, and those with `param_dtype=bfloat16`, `optimizer.skip` or `norm=batch`
from before 2026-12-01.
"""

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from arguments import Parser
from data.task import build_task
from hybrids import layout as layout_lib
from hybrids import mixer as mixer_lib
from hybrids import pure
from hybrids.head.classifier import Pooled
from hybrids.model import Model, ModelState, build_model
from mistake import Mistake
from scripts import older_states
from training import leaves, optimizer, sharding, workdir
from training import state as state_lib
from training.checkpoint import Checkpoints


class Place(NamedTuple):
  """Where the variables of a layer were: `groups` had those of layers in a loop stacked, by iteration."""

  part: str
  name: str
  iteration: int


class ClassifierState(NamedTuple):
  """The state of a classifier in old checkpoints."""

  position: Any
  layers: Any
  pooled: Any
  weight: Any


class LanguageModelState(NamedTuple):
  """The state of a language model in old checkpoints."""

  position: Any
  layers: Any


def places(model: Model) -> list[Place]:
  """Returns where the variables of each layer of a model's stack were."""
  stack = model._body(parent=None)
  letters = stack.layout.letters
  files = {letter: mixer_lib.find(spec["name"]).__module__.rpartition(".")[2] for letter, spec in stack.letters.items()}
  n = len(letters)
  period = next(p for p in range(1, n + 1) if letters[p:] == letters[:-p] or p == n)
  first = period if any(layer.offers for layer in stack.layout.layers) else 0
  groups = (n - first) // period
  looped = range(first, first + period * groups) if groups > 1 else range(0)
  made = []
  for layer, letter in enumerate(letters):
    if layer in looped:
      place = (layer - first) % period
      made.append(Place("groups", f"{place}_{files[letters[first + place]]}", (layer - first) // period))
    else:
      made.append(Place("layers", f"{layer}_{files[letter]}", -1))
  return made


def older(model: Model, tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables of one collection, or a tree of their structure, in the old layout."""
  tree = dict(tree)
  body, head, embed = dict(tree.pop("body", {})), dict(tree.pop("head", {})), dict(tree.pop("embed", {}))
  old: dict[str, Any] = {**tree}
  if "class_token" in embed:
    old["cls"] = embed.pop("class_token")
  old |= {"embed": embed} if embed else {}
  old |= {"final_norm": body.pop("final_norm")} if "final_norm" in body else {}
  old |= {"head": head["table"] if "table" in head else head["out_proj"]} if head else {}
  layout = model._body(parent=None).layout
  apart = layout_lib.apart(layout, {"": body})[""]
  parts: dict[str, dict[str, list]] = {"groups": {}, "layers": {}}
  for layer, place in zip(layout.layers, places(model)):
    if str(layer.number) in apart.get(layer.letter, {}):
      parts[place.part].setdefault(place.name, []).append(apart[layer.letter][str(layer.number)])
  stack = {"groups": {name: pure.stack(trees) for name, trees in parts["groups"].items()}}
  stack["layers"] = {name: trees[0] for name, trees in parts["layers"].items()}
  return old | {"stack": {part: trees for part, trees in stack.items() if trees}} if any(stack.values()) else old


def newer(model: Model, tree: Mapping[str, Any]) -> dict[str, Any]:
  """Inverts `older`."""
  old = dict(tree)
  stack, head, embed = old.pop("stack", {}), old.pop("head", None), dict(old.pop("embed", {}))
  body: dict[str, Any] = {"final_norm": old.pop("final_norm")} if "final_norm" in old else {}
  if "cls" in old:
    embed["class_token"] = old.pop("cls")
  layout = model._body(parent=None).layout
  apart: dict[str, dict[str, Any]] = {}
  for layer, place in zip(layout.layers, places(model)):
    own = stack.get(place.part, {}).get(place.name)
    if own is not None:
      one = own if place.iteration < 0 else pure.at(own, place.iteration)
      apart.setdefault(layer.letter, {})[str(layer.number)] = one
  body |= layout_lib.together(layout, {"": apart})[""]
  new = {**old, **({"embed": embed} if embed else {}), **({"body": body} if body else {})}
  if head is None:
    return new
  return new | {"head": {"out_proj": head} if isinstance(head, Mapping) else {"table": head}}


def older_state(model: Model, state: state_lib.TrainState) -> state_lib.TrainState:
  """Turns a training state of today into one of the old layout."""
  carry = state.carry
  if carry:
    has_pool = isinstance(carry.head, Pooled)
    carry = ClassifierState(*carry[:2], *carry.head) if has_pool else LanguageModelState(*carry[:2])
  return _each(state, "body", lambda tree: older(model, tree))._replace(carry=carry)


def newer_state(model: Model, state: state_lib.TrainState) -> state_lib.TrainState:
  """Turns a training state of the old layout into one of today."""
  carry = state.carry
  if carry:
    head = Pooled(carry.pooled, carry.weight) if isinstance(carry, ClassifierState) else ()
    carry = ModelState(carry.position, carry.layers, head)
  return _each(state, "stack", lambda tree: newer(model, tree))._replace(carry=carry)


def convert(folder: Path, out: Path, step: int | None = None) -> int:
  """Writes the run in `folder` to `out`, and returns the step.

  Raises:
    Mistake: there is no older run in the first or something in the second folder.
  """
  stored = folder / workdir.CONFIG
  if not stored.is_file():
    raise Mistake(f"{folder} holds no run: it has no {workdir.CONFIG}")
  is_nested = "body" in json.loads(stored.read_text()).get("model", {"body": {}})
  if out.exists():
    raise Mistake(f"{out} exists; give a folder that does not")
  config = workdir.get_config(str(folder))
  task = build_task(**config.data.to_dict())
  model = build_model(task, **config.model.to_dict())
  shapes = state_lib.variables_shape(model, task)["params"]
  tx = optimizer.build(shapes, steps=config.steps, **config.optimizer.to_dict())
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(mesh):
    stateful = state_lib.carries(model, stateful=task.stateful)
    _, template = state_lib.blueprint(model, task, tx, mesh, stateful=stateful)
    whole = NamedSharding(mesh, PartitionSpec())
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)
    if is_nested:
      old = older_states.before(template, shapes, steps=config.steps, section=config.optimizer.to_dict())
    else:
      old = jax.eval_shape(lambda state: older_state(model, state), template)
    old_like = jax.tree.map(place, old)
    with contextlib.closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
      if checkpoints.layout(step)[1].keys() == leaves.by_path(template).keys():
        raise Mistake(f"{folder} holds a run of today, which needs no conversion")
      restored = checkpoints.restore(old_like, step)
    assert restored is not None, "it has a layout"
    made = older_states.after(restored.state, template) if is_nested else newer_state(model, restored.state)
    state = jax.tree.map(jnp.asarray, made)
    out.mkdir(parents=True)
    with contextlib.closing(Checkpoints(out / "checkpoints")) as checkpoints:
      checkpoints.save(restored.step, state, data_state=restored.data_state, extra=restored.extra)
      checkpoints.wait()
  workdir.write_json(out / workdir.CONFIG, json.loads(config.to_json()))
  for name in (workdir.DATA, "metrics.jsonl"):
    if (folder / name).is_file():
      shutil.copy2(folder / name, out / name)
  return restored.step


def main(argv: Sequence[str]) -> int:
  """Converts, and says what was written."""
  parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdir", type=Path)
  parser.add_argument("out", type=Path)
  parser.add_argument("--step", type=int)
  args = parser.parse_args(argv)
  try:
    step = convert(args.workdir, args.out, args.step)
  except (Mistake, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(f"{args.out}: step {step} of {args.workdir}; go on with --workdir {args.out}")
  return 0


def _each(tree: Any, key: str, change: Any) -> Any:
  """Returns a pytree with every dict that has the key changed."""
  has = lambda node: isinstance(node, Mapping) and key in node
  return jax.tree.map(lambda node: change(node) if has(node) else node, tree, is_leaf=has)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
