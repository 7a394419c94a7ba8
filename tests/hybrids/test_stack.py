"""A stack runs its layers in the pattern's order, in a loop where they repeat, and is itself a mixer."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors
from jax.sharding import PartitionSpec as P

from hybrids.body.stack import Stack
from hybrids.channel.mlp import MLP
from layers.norms import RMSNorm
from tests.hybrids import toys
from tests.hybrids.filled import filled

B, T, D = 2, 5, 4
MIXERS = {
  "d": dict(name="tests.hybrids.toys.Decay"),
  "-": dict(name="mlp", expand=2),
  "c": dict(name="tests.hybrids.toys.Centre"),
  "o": dict(name="tests.hybrids.toys.Offers"),
  "1": dict(name="tests.hybrids.toys.Ones"),
  "w": dict(name="tests.hybrids.toys.Whole"),
}
X = jax.random.normal(jax.random.key(7), (B, T, D))
LENGTHS = jnp.array([3, 5])
RESET = jnp.zeros((B, T), bool).at[:, 2].set(True)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def make(depth=5, pattern="d-", **kwargs):
  return Stack(width=D, depth=depth, pattern=pattern, letters=MIXERS, last_norm=False, **kwargs)


@functools.cache
def variables(depth=5, pattern="d-"):
  return filled(make(depth, pattern), X)


def paths(tree):
  leaves = jax.tree.leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def by_hand(params, x, **masks):
  """The same five layers, one after the other, each with its own parameters."""
  modules = {"d": toys.Decay(D), "-": MLP(D, expand=2)}
  for index, letter in enumerate("d-d-d"):
    layer = jax.tree.map(lambda leaf: leaf[index // 2], params[letter])  # noqa: B023
    n = RMSNorm().apply({"params": layer["norm"]}, x)
    x = x + modules[letter].apply({"params": layer["mixer"]}, n, **masks)
  return x


@functools.cache
def value_and_gradients(run):
  """Of something that depends on all outputs; `run` maps parameters and x to y."""
  weigh = jnp.cos(jnp.arange(B * T * D).reshape(B, T, D))
  loss = lambda params, x: jnp.sum(weigh * run(params, x, reset=RESET))
  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables()["params"], X)


def test_parameters_have_stable_names_shapes_and_axes():
  boxed = jax.eval_shape(make().init, jax.random.key(0), X)
  found = {name: leaf.shape for name, leaf in paths(nn.meta.unbox(boxed)).items()}
  assert found == {
    "params/d/mixer/a": (3, 4),
    "params/d/mixer/scale": (3, 4),
    "params/d/norm/scale": (3, 4),
    "params/-/mixer/in_proj/kernel": (2, 4, 8),
    "params/-/mixer/out_proj/kernel": (2, 8, 4),
    "params/-/norm/scale": (2, 4),
  }
  specs = nn.get_partition_spec(boxed)["params"]
  assert specs["-"]["mixer"]["in_proj"]["kernel"] == P("layers", "embed", "mlp")
  assert specs["d"]["mixer"]["scale"] == P("layers", "embed")


def test_each_layer_is_initialised_in_its_place():
  fresh = nn.meta.unbox(jax.jit(make().init)(jax.random.key(0), X))["params"]
  close(fresh["d"]["mixer"]["scale"][:, 0], [1, 3, 5])
  kernels = [fresh["-"]["mixer"]["out_proj"]["kernel"][i] for i in range(2)]
  assert not np.allclose(*kernels), "layers have keys of their own"
  assert np.max(np.abs(kernels)) < (8 * 5) ** -0.5, "the mlp is told the depth"


def test_a_model_of_any_size_is_counted_without_allocating():
  huge = Stack(width=2**14, depth=100, pattern="d-", letters=MIXERS)
  shapes = jax.eval_shape(huge.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 2**14), jnp.float32))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 50 * (3 * 2**14 + 2**14 + 4 * 2**28) + 2**14


@pytest.mark.parametrize(
  "options",
  [
    *({"unroll": 1, "remat": remat} for remat in ("none", "full", "dots", "scans", "offload")),
    *({"unroll": 2}, {"remat": "full"}),
  ],
  ids=str,
)
def test_the_loop_equals_the_layers_one_by_one(options):
  stack = make(**options)
  found = value_and_gradients(lambda params, x, **masks: stack.apply({"params": params}, x, **masks))
  jax.tree.map(close, found, value_and_gradients(by_hand))


def test_the_state_is_one_for_each_layer_with_the_batch_in_front():
  stack = make()
  state = stack.init_state(3, 9)
  assert [type(layer).__name__ for layer in state] == ["State", "Stateless"] * 2 + ["State"]
  assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(state))
  same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
  for method, x in (("prefill", X), ("step", X[:, 0])):
    after = jax.eval_shape(functools.partial(stack.apply, method=method), variables(), x, stack.init_state(B, 9))[1]
    assert jax.tree.all(jax.tree.map(same, stack.init_state(B, 9), after))


@pytest.mark.smoke
def test_prefill_then_steps_equals_all_at_once():
  stack = make()
  apply = lambda method: jax.jit(functools.partial(stack.apply, variables(), method=method))
  y, state = apply("prefill")(X[:, :3], stack.init_state(B, T))
  steps = [y]
  for t in range(3, T):
    y, state = apply("step")(X[:, t], state)
    steps.append(y[:, None])
  close(jnp.concatenate(steps, axis=1), apply("__call__")(X))


def test_nothing_past_the_lengths_gets_in_or_out():
  stack = make(branch=dict(norm_position="post"))
  params = filled(stack, X)["params"]
  loss = lambda params, x: jnp.sum(jnp.square(stack.apply({"params": params}, x, lengths=LENGTHS)))
  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  past = jnp.arange(T)[:, None] >= LENGTHS[:, None, None]
  found, expected = (run(params, jnp.where(past, value, X)) for value in (jnp.nan, 9.0))
  jax.tree.map(close, found, expected)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
  y = jax.jit(functools.partial(stack.apply, lengths=LENGTHS))({"params": params}, X)
  assert (np.asarray(y)[np.broadcast_to(past, X.shape)] == 0).all()


def test_dropout_differs_between_layers_and_calls_and_needs_a_key():
  stack = Stack(width=64, depth=3, pattern="1", letters=MIXERS, branch=dict(dropout=0.5), last_norm=False)
  x = jnp.zeros((1, 2, 64))
  params = {"params": {"1": {"norm": {"scale": jnp.ones((3, 64))}}}}
  run = jax.jit(lambda x, **rngs: stack.apply(params, x, rngs=rngs))
  close(run(x), 3)
  first = run(x, dropout=jax.random.key(1))
  assert set(np.unique(first)) == {0, 2, 4, 6}, "one mask for all layers would leave 0 and 6"
  close(first, run(x, dropout=jax.random.key(1)))
  assert not np.allclose(first, run(x, dropout=jax.random.key(2)))
  step = stack.apply(params, x[:, 0], stack.init_state(1, 2), method="step", rngs={"dropout": jax.random.key(1)})[0]
  assert set(np.unique(step)) == {0, 2, 4, 6}


def test_variables_apart_are_those_of_a_stack_without_a_loop():
  for depth, pattern in ((5, "d-"), (5, "cd"), (4, "o")):
    stack, stacked = make(depth, pattern), variables(depth, pattern)
    apart = stack.apart(stacked)
    assert all(
      set(apart["params"][letter]) == set(map(str, range(stack.layout.letters.count(letter)))) for letter in pattern
    )
    jax.tree.map(np.testing.assert_array_equal, stack.together(apart), stacked)
    run = jax.jit(functools.partial(stack.apply, method="prefill"))
    jax.tree.map(close, run(apart, X, stack.init_state(B, T)), run(stacked, X, stack.init_state(B, T)))


def test_missing_parameters_are_named():
  params = {"params": {"d": variables()["params"]["d"]}}
  with pytest.raises(errors.ScopeParamNotFoundError, match='"-"'):
    make().apply(params, X)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(pattern="dz"), r"pattern 'dz' uses \['z'\], but letters defines \['-', '1', 'c', 'd', 'o', 'w'\]"),
    (dict(depth=0), "depth=0: a stack has at least 1 layer"),
    (dict(remat="some"), r"no remat 'some'; choose from \['none', 'full', 'dots', 'scans', 'offload'\]"),
    (dict(unroll=-1), "unroll=-1"),
    (dict(branch=dict(norm=dict(name="batsch"))), r"no norm 'batsch'; choose from"),
    (dict(branch=dict(norm=dict(name="rms", epps=1.0))), r"norm 'rms' has no field 'epps' .did you mean 'eps'"),
    (dict(branch=dict(norm_position="mid")), "norm_position='mid'; choose from"),
    (dict(branch=dict(dropout=1.0)), "dropout=1.0; it is the share"),
    (dict(branch=dict(dropuot=0.1)), "letter '-' has no field 'dropuot' .did you mean 'dropout'"),
    (dict(shared="x"), r"shared='x' names \['x'\], but the pattern is 'd-'"),
    (dict(lora=2), "lora=2, shared=''"),
    (dict(lora_only="["), r"lora_only='\[' is no regular expression: unterminated"),
    (dict(lora_joint="("), r"lora_joint='\(' is no regular expression: missing \)"),
    (dict(letters={"d": dict(name="mlp", expnad=1), "-": dict(name="mlp")}), "has no field 'expnad'"),
  ],
  ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_when_the_stack_is_made(change, message):
  with pytest.raises(ValueError, match=message):
    Stack(**{**dict(width=D, depth=5, pattern="d-", letters=MIXERS), **change})


def test_a_stack_that_reads_everything_at_once_has_no_state():
  stack = make(pattern="dw")
  assert (stack.STATE, make().STATE) == ("none", "fixed")
  with pytest.raises(ValueError, match="'tests.hybrids.toys.Whole' reads the whole sequence at once"):
    stack.init_state(1, 2)


def test_a_state_of_another_depth_is_refused():
  with pytest.raises(ValueError, match="state has 4 layers, but the stack has depth=5"):
    make().apply(variables(), X, make(depth=4).init_state(B, T), method="prefill")


def test_stacks_nest():
  inner = dict(name="hybrids.body.stack.Stack", depth=2, pattern="d", letters={"d": MIXERS["d"]})
  stack = Stack(width=D, depth=2, pattern="s", letters={"s": inner})
  params = filled(stack, X)
  y, state = jax.jit(functools.partial(stack.apply, method="prefill"))(params, X, stack.init_state(B, T))
  close(jax.jit(stack.apply)(params, X), y)
  assert len(state) == 2
  assert len(state[0]) == 2
