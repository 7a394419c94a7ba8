"""Variables of today have the names and shapes of 2e67293 when they are turned back, and lose nothing on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from hybrids.model import Model
from mistake import Mistake
from scripts import convert, older_states
from tests.hybrids.filled import filled
from tests.refused import refused
from training import leaves, optimizer
from training.state import TrainState

LETTERS = {"m": {"name": "min_gru"}, "a": {"name": "softmax", "heads": 2}, "r": {"name": "rwkv7", "head_size": 4}}
TOKENS = jnp.zeros((1, 2), jnp.int32)


def model(pattern, depth, **kwargs):
  body = {"name": "stack", "pattern": pattern, "depth": depth, "letters": LETTERS}
  return Model(**{"vocab": 5, "width": 8, "body": body, "head": {"name": "lm", "tie": False}} | kwargs)


def names(tree):
  flat = jax.tree.leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in flat}


@pytest.mark.parametrize(
  "pattern, depth, kwargs, expected",
  [
    (
      "ma",
      5,
      {"embed": {"position": "learned"}, "max_len": 3},
      {
        **{"head": (5, 8), "final_norm/scale": (8,), "embed/embedding": (5, 8), "embed/positions": (3, 8)},
        **{"stack/groups/0_min_gru/norm/scale": (2, 8), "stack/groups/1_softmax/norm/scale": (2, 8)},
        "stack/layers/4_min_gru/norm/scale": (8,),
      },
    ),
    ("r", 3, {}, {"stack/layers/0_rwkv7/norm/scale": (8,), "stack/groups/0_rwkv7/norm/scale": (2, 8)}),
    ("mma", 5, {}, {f"stack/layers/{i}_{name}/norm/scale": (8,) for i, name in ((0, "min_gru"), (2, "softmax"))}),
    (
      "m",
      2,
      {"classes": 3, "head": {"name": "classifier", "pool": "cls"}, "embed": {"class_token": "end"}},
      {"head/kernel": (8, 3), "head/bias": (3,), "cls": (8,), "stack/groups/0_min_gru/norm/scale": (2, 8)},
    ),
  ],
  ids=["loop", "offers", "no loop", "classifier"],
)
def test_names_are_those_of_older_runs_and_nothing_is_lost(pattern, depth, kwargs, expected):
  made = model(pattern, depth, **kwargs)
  params = filled(made, TOKENS)["params"]
  old = convert.older(made, params)
  assert expected.items() <= names(old).items()
  assert not any(name.startswith("body") for name in names(old))
  assert sum(leaf.size for leaf in jax.tree.leaves(old)) == sum(leaf.size for leaf in jax.tree.leaves(params))
  jax.tree.map(np.testing.assert_array_equal, convert.newer(made, old), params)


def test_a_folder_without_an_older_run_is_refused(tmp_path):
  refused("holds no run: it has no config.json", convert.convert, tmp_path, tmp_path / "out")
  (tmp_path / "config.json").write_text('{"model": {"pattern": "m"}}')
  refused("exists; give a folder that does not", convert.convert, tmp_path, tmp_path)


@pytest.mark.parametrize("skip, dtype", [(2.0, "bfloat16"), (2.0, "float32"), (0.0, "bfloat16")])
def test_optimizers_and_statistics_of_last_month_lose_nothing(skip, dtype):
  made = model("ma", 2, param_dtype=dtype)
  shapes = meta.unbox(jax.eval_shape(made.init, jax.random.key(0), TOKENS))["params"]
  learned = {"body": {"m": {"norm": {"mean": jnp.ones(8), "var": jnp.ones(8)}}}}
  section = {"name": "adamw", "lr": 1e-3, "skip": skip, "spike": 0.0, "ema": 0.9}
  tx = optimizer.build(shapes, steps=9, **section)
  opt = jax.eval_shape(tx.init, shapes)
  like = TrainState(0, shapes, {"batch_stats": learned, "buffers": {"body": {"m": {"K": jnp.ones(2)}}}}, opt, 0, (), 0)
  numbers = iter(range(1000))
  draw = lambda z: jnp.full(z.shape, next(numbers), z.dtype)
  old = older_states.before(like, shapes, steps=9, section=section)
  assert set(old.buffers["buffers"]["body"]["m"]) == {"norm", "K"}
  assert leaves.by_path(old).keys() != leaves.by_path(like).keys()
  stored = old._replace(params=jax.tree.map(draw, old.params), opt=jax.tree.map(draw, old.opt))
  new = older_states.after(stored, like)
  assert jax.tree.structure(new) == jax.tree.structure(like)
  same = lambda z, want: (z.shape, z.dtype) == (want.shape, want.dtype)
  assert jax.tree.all(jax.tree.map(same, new.opt, opt))
  jax.tree.map(np.testing.assert_array_equal, new.params, stored.params)
  was = {float(z.ravel()[0]) for z in jax.tree.leaves(stored.opt.inner_state if skip else stored.opt)}
  assert was <= {float(z.ravel()[0]) for z in jax.tree.leaves(new.opt)}


@pytest.mark.parametrize(
  "old, new",
  [
    ("params/stack/groups/0_mamba/D", "params/body/m/D"),
    ("opt/inner_state/0/mu", "opt/inner/0/mu"),
    ("buffers/buffers/norm/mean", "buffers/batch_stats/norm/mean"),
  ],
)
def test_an_older_checkpoint_names_the_converter(old, new):
  old, new = [old], [new]
  with pytest.raises(Mistake, match="python -m scripts.convert WORKDIR NEW_WORKDIR"):
    leaves.check_version("runs/old/checkpoints/20", old, new)
  for saved, wanted in ((old, old), (new, new)):
    leaves.check_version("runs/old/checkpoints/20", saved, wanted)
