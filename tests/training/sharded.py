"""Started by test_sharding.py in processes of their own, since a process has one set of devices.

python -m tests.training.sharded mesh MODEL      eight devices as 2 data, 2 fsdp, 2 tensor (or sequence) against one
python -m tests.training.sharded dropout         eight devices as each mesh of DROPOUT_MESHES against one
python -m tests.training.sharded processes PORT COUNT INDEX   three updates; process 0 prints losses and parameters
"""

import json
import sys

import jax
import numpy as np

from tests.training import toy
from training import optimizer, platform, sharding, state, step
from training.evaluate import make_evaluate

ADAM = dict(lr=0.01, weight_decay=0.1, clip=1.0, ema=0.9)
# the update is the gradient itself
PLAIN = dict(name="sgd", lr=1.0, b1=0.0, schedule="constant")
DROPOUT_MESHES = (
  dict(data=8),
  dict(fsdp=8),
  dict(data=4, tensor=2),
  dict(data=4, sequence=2),
  dict(fsdp=2, sequence=2, tensor=2),
)


def build(model, task, mesh, settings=ADAM):
  shapes = state.variables_shape(model, task)
  tx = optimizer.build(shapes["params"], steps=10, **settings)
  return (tx, *state.blueprint(model, task, tx, mesh, stateful=False))


def language_model(**branch):
  from hybrids.model import build_model

  letters = {"m": {"name": "mamba", "state": 4}, "a": {"name": "softmax", "heads": 2}, "-": {"name": "gated_mlp"}}
  body = {"name": "stack", "depth": 6, "pattern": "m-a", "letters": letters, "branch": branch}
  return build_model(toy.Task(), width=8, body=body)


def mixture():
  from hybrids.model import build_model

  experts = dict(name="moe", experts=8, top_k=2, inner=6, scores="sigmoid", selection_bias=True, shared=4, router_z=0.1)
  return build_model(toy.Task(), width=8, body={"name": "stack", "depth": 2, "pattern": "e", "letters": {"e": experts}})


def recipe(name):
  """The toy size of a published model, on the toy task's tokens."""
  from hybrids.model import build_model
  from hybrids.recipes import get_recipe

  return build_model(toy.Task(), **get_recipe(name).model)


def largest(tree):
  return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def on_mesh(model, task, mesh, variables, *, whole):
  """Loss and gradient, with `whole` also the evaluation after an update, from given parameters."""
  with sharding.active(mesh):
    tx, init, like = build(model, task, mesh)
    now = init(0)
    assert jax.tree.map(lambda x: x.sharding, now) == jax.tree.map(lambda x: x.sharding, like), "not made in its place"
    params = jax.tree.map(lambda value, x: jax.device_put(value, x.sharding), variables, like.params)
    now = now._replace(params=params)
    batch = sharding.put(task.make(0), mesh)
    (loss, _), gradient = jax.jit(step.make_gradient(model))(params, now, batch)
    loss, gradient = jax.device_get((loss, gradient))
    specs = {"/".join(map(str, leaf.sharding.spec)) for leaf in jax.tree.leaves(now.opt)}
    value = {"eval/valid/loss": 0.0}
    if whole:
      after = step.make_update(model, tx, like=like)(now, batch)
      value = make_evaluate(model, task, mesh)(after.variables)
  return loss, gradient, value, specs


def updated(model, task, mesh, variables, *batches):
  """The parameters after one update from all of the batches."""
  with sharding.active(mesh):
    tx, init, like = build(model, task, mesh, PLAIN)
    params = jax.tree.map(lambda value, x: jax.device_put(value, x.sharding), variables, like.params)
    update = step.make_update(model, tx, like=like)
    return jax.device_get(update(init(0)._replace(params=params), *(sharding.put(b, mesh) for b in batches)).params)


def accumulation(**sizes):
  """What accumulation over several devices differs by from one large batch on one, next to the update itself."""
  task, model = toy.Task(), toy.Model()
  batches = [task.make(i) for i in range(3)]
  # one batch has almost nothing to predict, another nothing on half of the devices
  batches[1]["weights"][1:] = 0
  batches[2]["weights"][: task.batch // 2] = 0
  single = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(single):
    before = jax.device_get(build(model, task, single)[1](0).params)
  whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
  large = updated(model, task, single, before, whole)
  found = updated(model, task, sharding.make_mesh(**sizes), before, *batches)
  subtract = lambda left, right: jax.tree.map(lambda a, b: a - b, left, right)
  print(json.dumps({"difference": largest(subtract(found, large)) / largest(subtract(large, before))}))


def compare(kind, **sizes):
  task, models = toy.Task(), {"language_model": language_model, "mixture": mixture}
  model = recipe(kind) if kind.endswith("_toy") else models.get(kind, toy.Model)()
  single = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(single):
    variables = jax.device_get(build(model, task, single)[1](0).params)
  whole = kind == "toy"
  loss, gradient, value, _ = on_mesh(model, task, single, variables, whole=whole)
  others = on_mesh(model, task, sharding.make_mesh(**sizes), variables, whole=whole)
  difference = largest(jax.tree.map(lambda a, b: a - b, gradient, others[1])) / largest(gradient)
  found = {"loss": abs(float(loss - others[0])), "gradient": difference, "specs": sorted(others[3])}
  print(json.dumps(found | {"eval": abs(value["eval/valid/loss"] - others[2]["eval/valid/loss"])}))


def dropout():
  """Dropout of entries and of whole branches drops the same ones on every mesh."""
  task, model = toy.Task(), language_model(dropout=0.3, layer_drop=0.3)
  single = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(single):
    variables = jax.device_get(build(model, task, single)[1](0).params)
  without, _, _, _ = on_mesh(language_model(), task, single, variables, whole=False)
  loss, gradient, _, _ = on_mesh(model, task, single, variables, whole=False)
  for sizes in DROPOUT_MESHES:
    other, others, _, _ = on_mesh(model, task, sharding.make_mesh(**sizes), variables, whole=False)
    difference = largest(jax.tree.map(lambda a, b: a - b, gradient, others)) / largest(gradient)
    found = {"loss": abs(float(loss - other)), "gradient": difference, "dropped": abs(float(loss - without))}
    print(json.dumps(found | {"mesh": sizes}), flush=True)


class Shared(toy.Task):
  """The toy task by processes: each has its share of the rows of one global batch."""

  def train(self, process_index=0, process_count=1):
    mine = self.batch // process_count
    cut = slice(process_index * mine, (process_index + 1) * mine)
    return ({key: value[cut] for key, value in self.make(i).items()} for i in range(10**9))

  def eval_sets(self, process_index=0, process_count=1):
    mine = self.batch // process_count

    def run():
      whole = self.make(123, 2 * self.batch)
      for first in (0, self.batch):
        yield {key: value[first + process_index * mine :][:mine] for key, value in whole.items()}

    return {"valid": run}


def processes(port, count, index):
  several = {"coordinator": f"127.0.0.1:{port}", "processes": count, "process": index} if count > 1 else {}
  platform.prepare(4 // count, **several)
  task, model, mesh = Shared(), toy.Model(), sharding.make_mesh(data=2, fsdp=2)
  with sharding.active(mesh):
    tx, init, like = build(model, task, mesh)
    now, update = init(0), step.make_update(model, tx, like=like)
    batches = task.train(jax.process_index(), jax.process_count())
    losses, forget = [], step.make_forget(like=like)
    for _ in range(3):
      now = update(now, sharding.put(next(batches), mesh))
      losses.append(step.report(now.seen, [])["train/loss"])
      now = now._replace(seen=forget())
    value = make_evaluate(model, task, mesh)(now.variables)["eval/valid/loss"]
    whole = jax.jit(lambda x: x, out_shardings=jax.tree.map(lambda _: now.step.sharding, now.params))(now.params)
  if jax.process_index() == 0:
    params = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(whole)])
    print(json.dumps({"losses": losses, "eval": value, "params": params.tolist()}))


if __name__ == "__main__":
  if sys.argv[1] == "mesh":
    platform.prepare(8)
    sizes = {"sequence": 2} if sys.argv[2] == "sequence" else {"tensor": 2}
    if sys.argv[2] == "toy":
      accumulation(data=2, fsdp=2, **sizes)
    compare("toy" if sys.argv[2] == "sequence" else sys.argv[2], data=2, fsdp=2, **sizes)
  elif sys.argv[1] == "dropout":
    platform.prepare(8)
    dropout()
  else:
    processes(*map(int, sys.argv[2:]))
