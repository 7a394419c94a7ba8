"""Whole models: prefill and steps equal the parallel call; what stands past the lengths does not matter."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from hybrids.heads import build_model
from tests.hybrids.filled import filled

B, T, D, V = 2, 5, 4, 7
MIXERS = {"d": dict(name="tests.hybrids.toys.Decay"), "w": dict(name="tests.hybrids.toys.Whole"), "-": dict(name="mlp")}
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, V)
RESET = jnp.zeros((B, T), bool).at[0, 3].set(True)
LENGTHS = jnp.array([5, 3])
LM = SimpleNamespace(head="lm", vocab=V, features=None, classes=None)
LABEL = SimpleNamespace(head="classifier", vocab=V, features=None, classes=3)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def make(task=LM, **kwargs):
  return build_model(task, **{**dict(width=D, depth=2, pattern="d", mixers=MIXERS, max_len=T), **kwargs})


@functools.cache
def ready(head="lm", **kwargs):
  """A model, parameters, and its jitted methods."""
  model = make(LM if head == "lm" else LABEL, **kwargs)
  variables = filled(model, TOKENS)
  method = functools.cache(lambda name: jax.jit(functools.partial(model.apply, variables, method=name)))
  return model, variables, method


@pytest.mark.smoke
@pytest.mark.parametrize(
  "head, options",
  [
    ("lm", dict(position="learned", tie=False)),
    ("lm", dict(position="sinusoidal", norm="layer", norm_position="post", learn_state=True)),
    ("classifier", dict(pool="mean", position="learned")),
    ("classifier", dict(pool="last")),
    ("classifier", dict(pool="cls", norm="layer", learn_state=True)),
  ],
  ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_prefill_and_steps_equal_all_at_once(head, options):
  model, variables, method = ready(head, **options)
  reset = None if model.learn_state else RESET
  y = method("__call__")(TOKENS, reset=reset)
  state = model.apply(variables, B, T, method="start")
  first, state = method("prefill")(TOKENS[:, :2], state, reset=None if reset is None else reset[:, :2])
  second, state = method("prefill")(TOKENS[:, 2:4], state, reset=None if reset is None else reset[:, 2:4])
  last, state = method("step")(TOKENS[:, 4], state)
  assert state.position.tolist() == ([5, 5] if reset is None else [2, 5])
  close(last, y[:, -1] if head == "lm" else y)
  if head == "lm":
    close(jnp.concatenate([first, second], axis=1), y[:, :4])
  same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
  assert jax.tree.all(jax.tree.map(same, state, model.init_state(B, T)))


@pytest.mark.parametrize("pool", ["mean", "last", "cls"])
def test_a_label_is_made_of_the_tokens_within_the_length(pool):
  model, variables, method = ready("classifier", pool=pool, position="learned" if pool == "mean" else "none")
  params = variables["params"]
  garbage = jnp.where(jnp.arange(T) < LENGTHS[:, None], TOKENS, V + 90)
  y = method("__call__")(garbage, lengths=LENGTHS)
  prefill = functools.partial(method("prefill"), garbage)
  prefilled, state = prefill(model.init_state(B, T), lengths=LENGTHS)
  close(prefilled, y)
  assert state.position.tolist() == LENGTHS.tolist()
  again, after = prefill(state, lengths=jnp.array([0, 0]))
  close(again, y)
  jax.tree.map(close, after, state)

  @jax.jit
  def expected(tokens):
    x, _ = model._embed(parent=None).apply({"params": params["embed"]}, tokens, jnp.zeros(1, jnp.int32))
    if pool == "cls":
      x = jnp.concatenate([x, params["cls"][None, None]], axis=1)
    y = model._stack(parent=None).apply({"params": params["stack"]}, x)[0]
    y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-5) * params["final_norm"]["scale"]
    pooled = jnp.mean(y, axis=0) if pool == "mean" else y[-1]
    return pooled @ params["head"]["kernel"] + params["head"]["bias"]

  close(y[1], expected(TOKENS[1:, : LENGTHS[1]]))


@functools.cache
def events():
  """A classifier of events by Event-SSM, and gaps before each of them; those past the lengths are NaN."""
  mixers = {"s": dict(name="event_ssm", state=4), "e": dict(name="gated_mlp", inner=4)}
  model = make(LABEL, pool="time", pattern="se", mixers=mixers)
  variables = filled(model, TOKENS)
  gaps = jax.random.exponential(jax.random.key(5), (B, T)).at[0, 1].set(0.0)
  method = functools.cache(lambda name: jax.jit(functools.partial(model.apply, variables, method=name)))
  return model, variables, method, jnp.where(jnp.arange(T) < LENGTHS[:, None], gaps, jnp.nan)


@pytest.mark.slow
def test_a_label_may_be_made_of_outputs_weighed_by_time():
  model, variables, method, gaps = events()
  params = variables["params"]
  y = method("__call__")(TOKENS, lengths=LENGTHS, side={"dt": gaps})
  x, _ = model._embed(parent=None).apply({"params": params["embed"]}, TOKENS, jnp.zeros(B, jnp.int32))
  outputs = model._stack(parent=None).apply({"params": params["stack"]}, x, lengths=LENGTHS, side={"dt": gaps})
  outputs = outputs * jax.lax.rsqrt(jnp.mean(outputs**2, axis=-1, keepdims=True) + 1e-5) * params["final_norm"]["scale"]
  for row, n in enumerate(LENGTHS):
    weights = np.asarray(gaps[row, :n]) + 1e-6
    pooled = np.average(np.asarray(outputs[row, :n]), axis=0, weights=weights)
    close(y[row], pooled @ params["head"]["kernel"] + params["head"]["bias"])
  # the same, as events come in
  state, cut = model.init_state(B, T), lambda z: z[:, :2]
  _, state = method("prefill")(cut(TOKENS), state, side={"dt": cut(gaps)})
  for t in (2, 3, 4):
    stepped, state = method("step")(TOKENS[:, t], state, side={"dt": gaps[:, t]})
    ended = np.flatnonzero(t == LENGTHS - 1)
    close(stepped[ended], y[ended])


def test_without_tokens_the_pool_is_empty():
  _, variables, method, gaps = events()
  y = method("__call__")(TOKENS, lengths=jnp.zeros(B, jnp.int32), side={"dt": gaps})
  close(y, jnp.broadcast_to(variables["params"]["head"]["bias"], y.shape))


def test_side_inputs_that_nobody_knows_are_named():
  model, variables, _, gaps = events()
  with pytest.raises(ValueError, match=r"side has \['gap'\]"):
    model.apply(variables, TOKENS, side={"dt": gaps, "gap": gaps})
  model, variables, _ = ready("classifier", pool="cls")
  with pytest.raises(ValueError, match=r"pool='cls' has a token of its own.*\['dt'\]"):
    model.apply(variables, TOKENS, side={"dt": gaps})


def test_time_weighs_outputs_of_mixers_that_know_no_time():
  _, _, method = ready("classifier", pool="time")
  one = lambda t: method("__call__")(TOKENS, side={"dt": jnp.zeros((B, T)).at[:, t].set(1.0)})
  even = method("__call__")(TOKENS)
  np.testing.assert_allclose(sum(one(t) for t in range(T)) / T, even, atol=1e-4)
  assert np.abs(one(0) - one(4)).max() > 1e-3


def test_tokens_past_the_length_do_not_matter():
  model, _, method = ready(position="learned", tie=False)
  garbage = jnp.where(jnp.arange(T) < LENGTHS[:, None], TOKENS, V + 90)
  y = method("__call__")(garbage, lengths=LENGTHS)
  assert np.isfinite(y).all()
  close(y[1, :3], method("__call__")(TOKENS, reset=jnp.zeros((B, T), bool))[1, :3])
  prefilled, state = method("prefill")(garbage, model.init_state(B, T), lengths=LENGTHS)
  close(prefilled, y)
  assert state.position.tolist() == [5, 3]


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_model_that_reads_everything_at_once_classifies(pool):
  model, _, method = ready("classifier", pool=pool, pattern="w")
  assert model.STATE == "none"
  y = method("__call__")(TOKENS, reset=RESET, lengths=LENGTHS)
  other = jnp.where(jnp.arange(T) < LENGTHS[:, None], TOKENS, 0)
  close(y, method("__call__")(other, reset=RESET, lengths=LENGTHS))
  with pytest.raises(ValueError, match="reads the whole sequence at once"):
    model.init_state(1, 2)


def test_features_are_classified():
  task = SimpleNamespace(head="classifier", vocab=None, features=2, classes=3)
  model = make(task)
  x = jax.random.normal(jax.random.key(0), (B, T, 2)).at[1, 3:].set(jnp.nan)
  variables = filled(model, x)
  loss = lambda variables: jnp.sum(jnp.square(model.apply(variables, x, lengths=LENGTHS)))
  value, gradient = jax.jit(jax.value_and_grad(loss))(variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


def test_parameters_are_counted_in_closed_form_and_named_readably():
  stack = D + 2 * D + D + 2 * D * 4 * D
  for options, more in (({}, 0), (dict(tie=False), V * D), (dict(position="learned"), T * D)):
    model = make(pattern="d-", **options)
    shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), TOKENS))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == V * D + stack + D + more
    assert set(shapes) == {"embed", "stack", "final_norm"} | ({"head"} if "tie" in options else set())


def test_logits_are_float32_in_a_bfloat16_model():
  model, variables, method = ready(tie=False, position="learned")
  half = make(tie=False, position="learned", dtype="bfloat16")
  y = jax.jit(half.apply)(variables, TOKENS)
  assert y.dtype == jnp.float32
  assert np.max(np.abs(y - method("__call__")(TOKENS))) < 0.1
  _, state = jax.eval_shape(functools.partial(half.apply, method="prefill"), variables, TOKENS, half.init_state(B, T))
  assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state))


def test_a_position_beyond_the_table_is_refused_or_nan():
  model, variables, method = ready(tie=False, position="learned")
  with pytest.raises(ValueError, match="6 tokens, but position='learned' has a table of max_len=5"):
    model.apply(variables, jnp.zeros((1, 6), jnp.int32))
  state = model.init_state(B, T)._replace(position=jnp.array([4, 5]))
  assert np.isnan(method("step")(TOKENS[:, 0], state)[0]).all(axis=1).tolist() == [False, True]


def test_models_can_be_hashed_and_compared():
  assert hash(make()) == hash(make())
  assert make() == make()
  assert make() != make(depth=5)


@pytest.mark.parametrize(
  "task, change, message",
  [
    (SimpleNamespace(head="regressor"), {}, r"no head 'regressor'; choose from \['classifier', 'lm'\]"),
    (LM, dict(widht=4), r"the 'lm' model has no field 'widht'; did you mean 'width'"),
    (LM, dict(mixers={"d": dict(name="decay")}, pattern="d"), "no mixer is called 'decay'; choose from"),
    (LM, dict(mixers={"d": dict(name="mlp", activation="glu")}, pattern="d"), "mlp: no activation 'glu'"),
    (LM, dict(position="rope"), "no position 'rope'"),
    (LABEL, dict(pool="max"), r"no pool 'max'; choose from \['mean', 'last', 'cls', 'time'\]"),
  ],
  ids=["head", "field", "mixer", "mixer's field", "position", "pool"],
)
def test_bad_settings_are_named_when_the_model_is_built(task, change, message):
  with pytest.raises(ValueError, match=message):
    make(task, **change)


def test_a_needed_field_is_missed():
  with pytest.raises(ValueError, match=r"the 'lm' model needs \['depth', 'pattern', 'mixers'\]"):
    build_model(LM, width=4)
