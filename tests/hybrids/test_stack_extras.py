"""What layers keep, sow, offer and learn, in a loop as outside of one."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.body.stack import Stack
from hybrids.mixer import build
from kernels import dispatch
from tests.hybrids.filled import filled
from tests.hybrids.test_stack import B, D, T, X, close, make, variables
from tests.refused import refused

BATCH = dict(name="batch", momentum=0.5)


def test_batch_statistics_are_kept_for_each_layer():
  stack = make(depth=5, pattern="cd")
  kept = nn.meta.unbox(jax.jit(stack.init)(jax.random.key(0), X))
  assert kept["batch_stats"]["c"]["mixer"]["mean"].shape == (3, D)
  assert all(not leaf.any() for leaf in jax.tree.leaves(kept["batch_stats"])), "initialising updates nothing"

  @jax.jit
  def train(kept, x):
    y, changed = stack.apply(kept, x, mutable=["batch_stats"])
    return y, {**kept, **changed}

  y, after = train(kept, X)
  groups = after["batch_stats"]["c"]["mixer"]["mean"]
  own = kept["params"]["c"]["norm"]["scale"][0]
  first = own * X * jax.lax.rsqrt(jnp.mean(X**2, axis=-1, keepdims=True) + 1e-5)
  close(groups[0], 0.5 * jnp.mean(first, axis=(0, 1)))
  assert not np.allclose(groups[0], groups[1]), "each layer has its own"
  assert jax.tree.structure(after) == jax.tree.structure(kept)
  evaluate = jax.jit(stack.apply)
  assert not np.allclose(evaluate(after, X), y), "evaluation uses what was kept"
  # also where the caller forgot that only training may change it
  run = functools.partial(stack.apply, method="prefill", mutable=["batch_stats"])
  (prefilled, _), changed = jax.jit(run)(after, X, stack.init_state(B, T))
  close(prefilled, evaluate(after, X))
  jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], after["batch_stats"])


@pytest.mark.parametrize("position", ["pre", "post", "sandwich"])
def test_batch_norm_learns_in_training_alone(position):
  branch = dict(norm_position=position, norm=BATCH)
  stack = Stack(width=D, depth=2, pattern="-", letters={"-": dict(name="mlp")}, branch=branch)
  kept = filled(stack, X)
  lengths = jnp.array([T - 2, *[T] * (B - 1)])
  y, changed = stack.apply(kept, X, lengths=lengths, mutable=["batch_stats"])
  moved = jax.tree.map(lambda a, b: not np.allclose(a, b), kept["batch_stats"], changed["batch_stats"])
  assert all(jax.tree.leaves(moved))
  # what lies in the padding does not count
  other = stack.apply(kept, X.at[0, -1].add(5), lengths=lengths, mutable=["batch_stats"])[1]
  jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], other["batch_stats"])
  found = stack.apply({**kept, **changed}, X, lengths=lengths)
  assert not np.allclose(found, y)
  close(stack.apply({**kept, **changed}, X, stack.init_state(B, T), lengths=lengths, method="prefill")[0], found)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_sown_values_come_out_by_layer(remat):
  stack = make(depth=5, pattern="cd", remat=remat)
  _, sown = jax.jit(functools.partial(stack.apply, mutable=["losses"]))(variables(5, "cd"), X)
  assert sown["losses"]["c"]["mixer"]["size"][0].shape == (3,)


def test_what_is_offered_first_reaches_the_layers_after_it():
  stack = make(depth=4, pattern="o")
  fresh = filled(stack, X)["params"]
  assert set(fresh["o"]["0"]["mixer"]) == {"key"}, "the first layer has nothing to take"
  assert fresh["o"]["mixer"]["mix"]["kernel"].shape == (3, D, D)

  @jax.jit
  def by_hand(x):
    norm = lambda x, scale: scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    first, others = fresh["o"]["0"], fresh["o"]
    offered = first["mixer"]["key"] * norm(x, first["norm"]["scale"])
    x = x + jnp.sin(norm(x, first["norm"]["scale"]))
    for scale, kernel in zip(others["norm"]["scale"], others["mixer"]["mix"]["kernel"]):
      x = x + jnp.sin(norm(x, scale)) + offered @ kernel
    return x

  close(jax.jit(stack.apply)({"params": fresh}, X), by_hand(X))
  prefill, step = (functools.partial(stack.apply, {"params": fresh}, method=method) for method in ("prefill", "step"))
  y, state = jax.jit(prefill)(X[:, :-1], stack.init_state(B, T))
  close(y, by_hand(X)[:, :-1])
  close(jax.jit(step)(X[:, -1], state)[0], by_hand(X)[:, -1])


def test_a_short_stack_offers_too():
  stack = make(depth=2, pattern="o")
  fresh = nn.meta.unbox(jax.eval_shape(stack.init, jax.random.key(0), X))["params"]["o"]
  assert (set(fresh["0"]["mixer"]), set(fresh["mixer"])) == ({"key"}, {"key", "mix"})


def test_side_reaches_those_that_take_it():
  stack = make(depth=3, pattern="do")
  assert stack.SIDE == ("first", "given")
  params = filled(stack, X)
  run = jax.jit(stack.apply)
  given = run(params, X, side={"given": jnp.ones((B, T, D))})
  assert not np.allclose(given, run(params, X))
  with pytest.raises(ValueError, match=r"Stack: side has \['gvien'\]; it reads \['first', 'given'\]"):
    stack.apply(params, X, side={"gvien": X})


def test_layers_of_one_letter_must_have_the_same_parameters():
  letters = {"g": dict(name="tests.hybrids.toys.Grows")}
  with pytest.raises(ValueError, match="'tests.hybrids.toys.Grows' has other parameters in layer 1 than in layer 0"):
    jax.eval_shape(Stack(width=D, depth=3, pattern="g", letters=letters).init, jax.random.key(0), X)


ZAMBA = {
  "m": dict(name="min_gru"),
  # attention from [x, embedding] to the width, then an MLP; both feed on, and are shared
  "s": dict(
    mixer=dict(
      name="with_embedding", norm=dict(name="rms"), mixer=dict(name="softmax", heads=2, scale=0.5, out_features=D)
    ),
    norm_position="none",
    feeds=True,
  ),
  "f": dict(mixer=dict(name="gated_mlp", inner=4), reads="fed", feeds=True),
  "g": dict(mixer=dict(name="min_gru"), reads="both"),
}


def test_expressions_that_name_no_matrix_are_refused():
  expressions = [("lora_only", dict(lora_only="qkv")), ("lora_joint", dict(lora_only="q_proj", lora_joint="gate"))]
  for field, lora in expressions:
    stack = Stack(width=D, depth=4, pattern="msfg", letters=ZAMBA, shared="sf", lora=1, **lora)
    said = f"{field}='{lora[field]}' is in the path of no such matrix"
    refused(said, filled, stack, X, side={"embedding": X})


def test_what_a_layer_feeds_reaches_the_next_ones_input_alone():
  """x + f(norm(x + W z)), z = MLP(norm(attention(norm([x, e])))), in loops as by hand; steps agree."""
  stack = Stack(width=D, depth=8, pattern="msfg", letters=ZAMBA, shared="sf", lora=1, lora_only="[qkv]_proj|gate_proj")
  e = jax.random.normal(jax.random.key(5), X.shape)
  kept = filled(stack, X, side={"embedding": e})
  params = kept["params"]
  assert set(params["s"]["lora"]["mixer"]["inner"]) == {"q_proj", "k_proj", "v_proj"}
  assert set(params["f"]["lora"]["mixer"]) == {"gate_proj"}
  assert params["g"]["fed_proj"]["kernel"].shape == (2, D, D)

  @jax.jit
  def by_hand(x):
    norm = lambda x, p: p["scale"] * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    gru, mlp = build("min_gru", width=D), build("gated_mlp", width=D, inner=4)
    attention = build("softmax", width=2 * D, heads=2, scale=0.5, out_features=D)
    for i in (0, 1):
      m, g = (jax.tree.map(lambda leaf, i=i: leaf[i], params[letter]) for letter in "mg")
      s, f = (changed(params[letter], i) for letter in "sf")
      x = x + gru.apply({"params": m["mixer"]}, norm(x, m["norm"]))
      both = norm(jnp.concatenate([x, e], axis=-1), s["mixer"]["norm"])
      z = attention.apply({"params": s["mixer"]["inner"]}, both)
      z = mlp.apply({"params": f["mixer"]}, norm(z, f["norm"]))
      x = x + gru.apply({"params": g["mixer"]}, norm(x + z @ g["fed_proj"]["kernel"], g["norm"]))
    return norm(x, params["final_norm"])

  def changed(p, i):
    """The shared parameters as the i-th layer uses them."""

    def add(tree, change):
      if set(change) == {"A", "B"}:
        return tree + change["A"][i] @ change["B"][i]
      return {name: add(tree[name], change[name]) if name in change else tree[name] for name in tree}

    return add({name: p[name] for name in p if name != "lora"}, p["lora"])

  y = jax.jit(lambda x: stack.apply(kept, x, side={"embedding": e}))(X)
  close(y, by_hand(X))
  step = jax.jit(lambda kept, x, state, e: stack.apply(kept, x, state, side={"embedding": e}, method="step"))
  state, own = stack.init_state(B, T), stack.apart(kept)
  for t in range(3):
    one, state = step(own, X[:, t], state, e[:, t])
    close(one, y[:, t])


@pytest.mark.parametrize(
  "letters, pattern, reason",
  [
    (ZAMBA, "msfm", "layer 2 'f' feeds the next one, and 'm' does not read it"),
    (ZAMBA, "msf", "layer 2 'f' feeds the next one, and None"),
    (ZAMBA, "mg", "layer 1 'g' reads what is fed to it, and 'm' feeds nothing"),
    ({"m": dict(mixer=ZAMBA["m"], reads="fed")}, "m", "reads='fed' leaves x out"),
    ({"m": dict(mixer=ZAMBA["m"], feeds=True, norm_position="post")}, "m", "norm_position='post' with feeds=True"),
  ],
)
def test_what_is_fed_is_read_and_what_is_read_is_fed(letters, pattern, reason):
  with pytest.raises(ValueError, match=reason):
    Stack(width=D, depth=len(pattern), pattern=pattern, letters=letters)


@pytest.mark.parametrize("name", ["mlp", "gated_mlp"])
def test_products_run_once_more_where_all_is_recomputed_and_not_where_they_are_kept(name):
  def products(remat):
    stack = Stack(width=D, depth=2, pattern="m", letters={"m": dict(name=name)}, remat=remat, unroll=1)
    gradient = jax.grad(lambda params, x: jnp.sum(stack.apply({"params": params}, x)))
    with dispatch.use("xla"):
      return str(jax.make_jaxpr(gradient)(filled(stack, X)["params"], X)).count("dot_general[")

  assert products("none") == products("dots") < products("full")


@pytest.mark.parametrize("mixer", [dict(name="s5"), dict(name="mamba"), dict(name="softmax", heads=2)], ids=str)
def test_a_scan_runs_once_more_where_all_is_recomputed_and_not_where_it_is_kept(mixer):
  def scans(remat):
    stack = Stack(width=D, depth=2, pattern="m", letters={"m": mixer}, remat=remat, unroll=1)
    gradient = jax.grad(lambda params, x: jnp.sum(stack.apply({"params": params}, x)))
    with dispatch.use("xla"):
      return str(jax.make_jaxpr(gradient)(filled(stack, X)["params"], X)).count("scan[")

  assert scans("none") == scans("scans") < scans("full") == scans("offload")
