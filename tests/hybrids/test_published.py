"""Models of papers, tiny and built from their sections alone: each is trained a step, and streams if it has a state.

They are the toy size of every recipe, and models without a recipe that show what sections can say.
"""

import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from hybrids import recipes, sections
from hybrids.model import build_model
from hybrids.objective import measure
from tests.contract.case import jit

B, T, V = 2, 8, 7
MAMBA, MAMBA2 = dict(name="mamba", state=2, dt_rank=1), dict(name="mamba2", state=2, head_size=4)
ATTENTION, MLP = dict(name="softmax", heads=2), dict(name="gated_mlp", inner=4)
LOCAL, BOTH = dict(name="softmax", heads=2, window=3), (MAMBA, ATTENTION)
SANDWICH = dict(norm_position="sandwich", norm=dict(name="rms", eps=1e-6))
SS2D = dict(name="image_scan", mixer=MAMBA)


def stack(pattern, depth, letters, **fields):
  return dict(name="stack", pattern=pattern, depth=depth, letters=letters, **fields)


def alike(**parts):
  """A letter of branches side by side."""
  return dict(mixer=dict(name="parallel", **parts))


LANGUAGE = {
  "hymba": dict(
    body=stack("p", 2, {"p": alike(join="mean", branches=[dict(mixer=m, norm_position="output") for m in BOTH])})
  ),
  "gemma_2": dict(
    body=stack("l-g-", 4, {"l": dict(LOCAL, softcap=50.0), "g": ATTENTION, "-": MLP}, branch=SANDWICH),
    embed=dict(scale=8**0.5), head=dict(name="lm", softcap=30.0),
  ),
  "olmo_2": dict(body=stack("a-", 4, {"a": ATTENTION, "-": MLP}, branch=dict(norm_position="output"))),
  "stochastic_depth": dict(body=stack("m", 2, {"m": MAMBA}, branch=dict(layer_drop=0.5, dropout=0.1))),
}  # fmt: skip
OTHERS = {
  "stages": (
    dict(head="classifier", vocab=None, features=1, classes=3, length=16),
    dict(
      embed=dict(name="patches", size=1),
      body=dict(name="stages", stages=[dict(pattern="s-", depth=2, letters={"s": SS2D, "-": MLP}) for _ in range(2)]),
    ),
  ),
  "regression": (
    dict(head="regression", vocab=None, features=2, classes=None, length=T),
    dict(embed=dict(name="features"), body=stack("m", 1, {"m": MAMBA}), head=dict(outputs=2, error="mae")),
  ),
  "autoencoder": (
    dict(head="autoencoder", vocab=V, features=None, classes=None, length=T),
    dict(body=stack("m", 1, {"m": MAMBA})),
  ),
  "multi_token": (
    dict(head="lm", vocab=V, features=None, classes=None, length=T),
    dict(
      body=stack("m", 1, {"m": MAMBA}),
      head=dict(name="multi_token", block=stack("a-", 2, {"a": ATTENTION, "-": MLP})),
    ),
  ),
  "masked_lm": (
    dict(head="masked_lm", vocab=V, features=None, classes=None, length=T),
    dict(body=stack("m", 1, {"m": dict(name="bidirectional", mixer=MAMBA)})),
  ),
  "dual_encoder": (
    dict(head="dual_encoder", vocab=V, features=None, classes=2, length=T),
    dict(body=stack("m", 1, {"m": MAMBA}), head=dict(pool="mean")),
  ),
}  # fmt: skip
TEXT = dict(head="lm", vocab=V, features=None, classes=None, length=T)
TOYS = {name: recipes.get_recipe(name) for name in recipes.names(toys=True)}
RECIPES = {
  name: ({size: getattr(toy, size) for size in TEXT} | dict(length=T if toy.head == "lm" else toy.length), toy.model)
  for name, toy in TOYS.items()
}
CASES = RECIPES | {name: (TEXT, {"width": 8, **section}) for name, section in LANGUAGE.items()} | OTHERS
# each shows a part of a model that the others do not have; the rest is slow
RARELY = {"stages", "multi_token"}
EVERYDAY = {"jamba_toy", "gpt2_toy", "vim_toy", "stochastic_depth", *OTHERS} - RARELY


def rows(names, everyday=frozenset(EVERYDAY)):
  return [pytest.param(name, marks=[pytest.mark.slow] * (name not in everyday)) for name in names]


@functools.cache
def build(name):
  task, section = CASES[name]
  return build_model(SimpleNamespace(**task), **{"width": 8, **section})


@functools.cache
def ready(name):
  """A model, its variables and a batch."""
  model = build(name)
  rng = np.random.default_rng(0)

  def draw(leaf, key):
    if key == "weights":
      return jnp.ones(leaf.shape)
    whole = leaf.dtype == jnp.int32
    return jnp.asarray(rng.integers(0, 2, leaf.shape) if whole else rng.normal(size=leaf.shape), leaf.dtype)

  batch = {key: draw(leaf, key) for key, leaf in model.example(B, CASES[name][0]["length"]).items()}

  @jit
  def init():
    variables = meta.unbox(model.init(jax.random.key(0), batch["inputs"]))
    # outputs that start at 0 would hide everything before them
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(variables["params"]))))
    move = lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape)
    return {**variables, "params": jax.tree.map(move, variables["params"])}

  return model, init(), batch


@pytest.mark.parametrize("name", rows(CASES))
def test_it_trains_a_step(name):
  model, variables, batch = ready(name)

  @jit
  def step(variables):
    value, gradient = jax.value_and_grad(
      lambda params: measure(model, {**variables, "params": params}, batch, rngs={"dropout": jax.random.key(1)})[:2],
      has_aux=True,
    )(variables["params"])
    return value, gradient, jax.tree.map(lambda p, g: p - 1e-2 * g, variables["params"], gradient)

  (before, sums), gradient, params = step(variables)
  (after, _), _, _ = step({**variables, "params": params})
  assert after < before, (before, after)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  text = str(CASES[name][1])
  balanced = "'moe'" in text and not re.search(r"'balance': 0\.0(?!\d)", text)
  assert ("losses/balance" in sums) == balanced


# test_bodies.py steps through Jamba's body every day
@pytest.mark.parametrize(
  "name", rows([*(n for n, toy in TOYS.items() if toy.head == "lm"), *LANGUAGE], EVERYDAY - {"jamba_toy"})
)
def test_token_by_token_is_all_at_once(name):
  model, variables, batch = ready(name)
  tokens = batch["inputs"]
  y = jit(model.apply)(variables, tokens)
  state = model.init_state(B, T)
  run = lambda method: jit(functools.partial(model.apply, method=method))
  first, state = run("prefill_all")(variables, tokens[:, :5], state)
  np.testing.assert_allclose(first, y[:, :5], rtol=1e-4, atol=1e-4)
  step, apart = run("step"), model.apart(variables)
  for t in range(5, T):
    one, state = step(apart, tokens[:, t], state)
    np.testing.assert_allclose(one, y[:, t], rtol=1e-4, atol=1e-4)


def test_shared_letters_have_one_set_of_variables_and_adapters_a_use():
  model, variables, batch = ready("zamba2_toy")
  params = variables["params"]["body"]
  assert params["m"]["norm"]["scale"].shape == params["g"]["norm"]["scale"].shape == (3, 8)
  assert params["f"]["norm"]["scale"].shape == params["u"]["norm"]["scale"].shape == (8,)
  assert params["f"]["lora"]["mixer"]["A"].shape == (2, 8, 1)
  assert params["u"]["lora"]["mixer"]["A"].shape == (1, 8, 1)
  assert set(params["f"]["lora"]["mixer"]["gate_proj"]["kernel"]) == {"B"}
  assert "lora" not in params["s"]
  jax.tree.map(np.testing.assert_array_equal, model.together(model.apart(variables)), variables)
  moved = jax.tree.map(lambda leaf: leaf, variables)
  moved["params"]["body"]["f"]["lora"] = jax.tree.map(lambda leaf: leaf.at[1].add(1.0), params["f"]["lora"])
  run = jit(model.apply)
  assert np.abs(run(moved, batch["inputs"]) - run(variables, batch["inputs"])).max() > 1e-3


@pytest.mark.slow
def test_a_body_may_change_time_and_width():
  model, variables, batch = ready("stages")
  assert variables["params"]["head"]["out_proj"]["kernel"].shape == (16, 3)
  with pytest.raises(ValueError, match="'patches' reads whole images"):
    model.apply(variables, batch["inputs"], lengths=jnp.array([16, 9]))
  with pytest.raises(ValueError, match="cannot be halved"):
    build_model(SimpleNamespace(**CASES["stages"][0]), width=8, body=stack("s", 1, {"s": CASES["stages"][1]["body"]}))


def test_a_unet_sees_no_later_token():
  model, variables, batch = ready("sashimi_toy")
  run = jit(model.apply)
  for t in (0, 3, 5, 7):
    other = batch["inputs"].at[:, t].set(V - 1)
    moved = np.abs(run(variables, other) - run(variables, batch["inputs"])).max(axis=(0, 2))
    # a Fourier transform leaves rounding errors
    assert (moved[:t] < 1e-5).all()
    assert moved[t:].max() > 1e-3


@pytest.mark.parametrize("name", rows(CASES))
def test_its_sections_can_be_filled_up(name):
  task, section = CASES[name]
  head = {"name": task["head"], **section.get("head", {})}
  full = sections.complete({"width": 8, **section, "head": head})
  assert build_model(SimpleNamespace(**task), **full).example(1, 16) == build(name).example(1, 16)
  assert sections.complete(full) == full
