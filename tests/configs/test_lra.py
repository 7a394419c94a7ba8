"""The Long Range Arena's models: every one reads both ways, has its authors' settings and trains a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from configs import lra
from data.task import build_task
from hybrids.mixer import build_spec
from hybrids.model import build_model
from hybrids.objective import measure
from tests.contract.case import jit
from training import optimizer, state

# the rest is slow
EVERYDAY = ("performer", "fnet")


def config(task, mixer, more=""):
  return lra.get_config(f"task={task},mixer={mixer}{more}")


@pytest.mark.parametrize("name", lra.MODELS)
def test_every_mixer_sees_later_tokens(name):
  for task in lra.TASKS:
    c = config(task, name).model
    mixer = build_spec(c.body.letters.m.to_dict(), width=c.width, layer=0, depth=c.body.depth)
    assert mixer.STATE == "none", f"{name} on {task} has a state, so that a token sees the earlier ones alone"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in EVERYDAY)) for n in lra.MODELS])
def test_every_model_trains_a_step(name):
  c = config("listops", name, ",length=96,shortest=10,longest=64,train_rows=8,batch=4,width=16,depth=2,dropout=0")
  if name in ("linformer", "bigbird"):
    assert c.model.body.letters.m.max_len == 2049, "2,048 tokens and the class token"
  task = build_task(**c.data.to_dict())
  model = build_model(task, **c.model.to_dict())
  batch = {key: jnp.asarray(rows) for key, rows in next(task.train()).items()}
  variables = meta.unbox(jit(model.init)(jax.random.key(0), batch["inputs"], lengths=batch["lengths"]))
  run = jit(jax.value_and_grad(lambda params: measure(model, {**variables, "params": params}, batch, rngs={})[0]))
  before, gradient = run(variables["params"])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient["body"])) > 0
  step = 1e-3 / max(1.0, float(np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))))
  after, _ = run(jax.tree.map(lambda p, g: p - step * g, variables["params"], gradient))
  assert after < before


def rules(task, mixer, *names):
  """Rate and decay of parameters of the first mixer."""
  c = config(task, mixer, "" if task == "listops" else ",dir=FOLDER")
  built = build_task(**c.data.to_dict())
  params = state.variables_shape(build_model(built, **c.model.to_dict()), built)["params"]
  o = c.optimizer
  rows = optimizer.assign(params, weight_decay=o.weight_decay, slow_lr=o.slow_lr, groups=o.groups)
  found = [next(row for path, row in rows.items() if path.endswith(f"/{name}")) for name in names]
  return [(round(o.lr * row.lr, 9), row.weight_decay) for row in found]


@pytest.mark.parametrize(
  "task, C_init, B, log_dt",
  [
    ("listops", "lecun_normal", (3e-3, 0.04), (1e-3, 0)),
    ("text", "lecun_normal", (1e-3, 0), (4e-3, 0.07)),
    ("retrieval", "trunc_standard_normal", (1e-3, 0), (2e-3, 0.05)),
    ("image", "lecun_normal", (4.5e-3, 0.07), (1e-3, 0)),
    ("pathfinder", "trunc_standard_normal", (9e-4, 0), (9e-4, 0)),
    ("path_x", "complex_normal", (6e-4, 0.06), (6e-4, 0)),
  ],
)
def test_s5_has_the_settings_of_its_authors(task, C_init, B, log_dt):
  c = config(task, "s5")
  mixer = c.model.body.letters.m
  assert (mixer.C_init, mixer.clip_eigs, mixer.bidirectional) == (C_init, task == "image", True)
  assert (c.optimizer.warmup == 0) == (task == "text")
  assert c.model.body.branch.norm.momentum == (0.9 if task in ("pathfinder", "path_x") else 0.95)
  assert rules(task, "s5", "B_re", "B_im", "log_dt") == [B, B, log_dt]


def test_time_steps_of_s4_have_the_global_rate_where_states_are_small():
  assert rules("listops", "s4", "log_dt", "B_re", "A_log") == [(1e-2, 0), (1e-3, 0), (1e-3, 0)]
  assert rules("image", "s4d", "log_dt", "B_re") == [(1e-3, 0), (1e-3, 0)]


def test_mega_has_a_perceptron_and_the_norms_of_its_tasks():
  for task, width, inner, keys, norm, position, dropout in (
    ("listops", 80, 160, 64, "layer", "post", 0.1),
    ("text", 128, 256, 64, "rms", "post", 0.1),
    ("image", 160, 320, 96, "batch", "pre", 0.0),
    ("path_x", 64, 128, 32, "batch", "pre", 0.0),
  ):
    c = config(task, "mega").model
    body = c.body
    assert (c.width, body.pattern, body.letters.m.inner, body.letters["-"].inner) == (width, "m-", inner, inner)
    assert (body.letters.m["keys"], body.branch.norm.name) == (keys, norm)
    assert (body.branch.norm_position, body.branch.dropout) == (position, dropout)


def test_state_spaces_of_before_mamba_have_batch_norm():
  for task in lra.TASKS:
    norms = {name: config(task, name).model.body.branch.norm.name for name in lra.MODELS if name != "mega"}
    assert {name for name, norm in norms.items() if norm == "batch"} == {"s4", "s4d", "s5", "lru"}


def test_pixels_and_rows_are_the_official_ones():
  for task in ("pathfinder", "path_x"):
    scales = {name: config(task, name).data.scale for name in lra.MODELS}
    assert {name for name, scale in scales.items() if scale == "unit"} == {"s4", "s4d"}
    assert config(task, "s5").data.eval_rows == 20_000
  assert config("listops", "s5").data.eval_rows == 2_000


def test_a_gated_convolution_sees_two_tokens_to_either_side():
  mixer = build_spec(config("listops", "gated_conv").model.body.letters.m.to_dict(), width=4, layer=0, depth=1)
  x = jax.random.normal(jax.random.key(0), (1, 12, 4))
  variables = meta.unbox(mixer.init(jax.random.key(1), x))
  moved = jax.grad(lambda x: mixer.apply(variables, x)[0, 6].sum())(x)
  assert np.flatnonzero(np.abs(moved[0]).sum(axis=1)).tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
  "task, mixer, width, depth, heads, head_size, hidden, dropout, position, warmup",
  [
    ("listops", "softmax", 512, 4, 8, 64, 1024, 0.1, "sinusoidal", 1000),
    ("retrieval", "softmax", 128, 4, 4, 32, 512, 0.1, "sinusoidal", 4999),
    ("image", "softmax", 128, 1, 8, 8, 128, 0.3, "learned", 175),
    ("pathfinder", "softmax", 32, 4, 4, 4, 32, 0.2, "sinusoidal", 312),
    ("pathfinder", "performer", 32, 4, 8, None, 32, 0.2, "sinusoidal", 312),
    ("pathfinder", "linear_transformer", 128, 1, 2, None, 128, 0.2, "sinusoidal", 312),
    ("path_x", "softmax", 32, 1, 2, 8, 32, 0.1, "learned", 2500),
  ],
)
def test_transformers_have_the_sizes_of_their_files(
  task, mixer, width, depth, heads, head_size, hidden, dropout, position, warmup
):
  c = config(task, mixer)
  body, letter = c.model.body, c.model.body.letters.m
  assert (c.model.width, body.depth, body.branch.dropout) == (width, 2 * depth, dropout)
  assert (letter.heads, letter.get("head_size"), body.letters["-"].inner) == (heads, head_size, hidden)
  assert (c.model.embed.position, c.optimizer.warmup, c.optimizer.b2) == (position, warmup, 0.98)
  assert c.optimizer.clip == (task == "path_x")


def test_transformers_read_a_class_token_and_pixels_as_tokens():
  pools = {
    (task, name): (c.model.head.pool, c.model.embed.get("class_token", "none"), c.model.head.get("inner"))
    for task in lra.TASKS
    for name in ("softmax", "local", "s5")
    for c in [config(task, name)]
  }
  assert pools["listops", "softmax"] == pools["text", "local"] == ("cls", "start", 1024)
  assert (pools["image", "softmax"], pools["image", "local"]) == (("cls", "start", 128), ("mean", "none", 128))
  assert pools["pathfinder", "softmax"] == pools["path_x", "local"] == ("mean", "none", 32)
  assert {pool for (task, name), pool in pools.items() if name == "s5"} == {("mean", "none", None)}
  image, path = config("image", "performer"), config("path_x", "luna")
  assert (image.data.dataset, path.data.scale) == ("cifar10_grey_tokens", "tokens")
  assert (image.model.embed.name, image.model.embed.std, path.model.embed.position_std) == ("tokens", 1.0, 0.02)


def test_transformer_is_another_name_of_softmax():
  assert config("text", "transformer").to_dict() == config("text", "softmax").to_dict()
  assert [setting["mixer"] for setting in lra.get_sweep()] == list(lra.MODELS)
