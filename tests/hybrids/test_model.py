"""Whole models: prefill and steps equal the parallel call; what stands past the lengths does not matter."""

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from hybrids.head.cross_entropy import cross_entropy
from hybrids.model import Model, build_model
from hybrids.objective import measure
from tests.hybrids.filled import filled
from tests.refused import refused

B, T, D, V = 2, 5, 4, 7
LETTERS = {
  "d": dict(name="tests.hybrids.toys.Decay"),
  "w": dict(name="tests.hybrids.toys.Whole"),
  "-": dict(name="mlp"),
}
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, V)
RESET = jnp.zeros((B, T), bool).at[0, 3].set(True)
LENGTHS = jnp.array([5, 3])
LM = SimpleNamespace(head="lm", vocab=V, features=None, classes=None, length=T)
LABEL = SimpleNamespace(head="classifier", vocab=V, features=None, classes=3, length=T)
POST = dict(norm=dict(name="layer"), norm_position="post")
CAPPED = dict(softcap=3.0, scale=2.0)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def make(task=LM, *, embed=None, head=None, max_len=T, dtype="float32", **body):
  """A model whose body is a stack of two layers, if it is not told otherwise."""
  stack = dict(name="stack", depth=2, pattern="d", letters=LETTERS) | body
  return build_model(task, width=D, max_len=max_len, dtype=dtype, embed=embed or {}, body=stack, head=head or {})


def ready(task=LM, **kwargs):
  """A model, parameters, and its jitted methods."""
  model = make(task, **kwargs)
  variables = filled(model, TOKENS)
  method = functools.cache(lambda name: jax.jit(functools.partial(model.apply, variables, method=name)))
  return model, variables, method


@pytest.mark.smoke
@pytest.mark.parametrize(
  "task, options",
  [
    (LM, dict(embed=dict(position="learned"), head=dict(tie=False))),
    (LM, dict(embed=dict(position="sinusoidal", scale=2.0, norm=dict(name="layer")), branch=POST, head=CAPPED)),
    (LABEL, dict(embed=dict(position="learned"), head=dict(pool="mean"))),
    (LABEL, dict(head=dict(pool="last"))),
    (LABEL, dict(embed=dict(class_token="end"), head=dict(pool="cls"), branch=dict(norm=dict(name="layer")))),
  ],
  ids=["learned", "post", "mean", "last", "cls"],
)
def test_prefill_and_steps_equal_all_at_once(task, options):
  model, variables, method = ready(task, **options)
  y = method("__call__")(TOKENS, reset=RESET)
  state = model.init_state(B, T)
  first, state = method("prefill")(TOKENS[:, :2], state, reset=RESET[:, :2])
  before, (_, state) = state, method("prefill")(TOKENS[:, 2:4], state, reset=RESET[:, 2:4])
  last, state = method("step")(TOKENS[:, 4], state)
  assert state.position.tolist() == [2, 5]
  close(last, y[:, -1] if task is LM else y)
  if task is LM:
    close(first, y[:, 1])
    close(method("prefill_all")(TOKENS[:, 2:4], before, reset=RESET[:, 2:4])[0], y[:, 2:4])
  same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
  assert jax.tree.all(jax.tree.map(same, state, model.init_state(B, T)))


@pytest.mark.parametrize("pool", ["mean", "last", "cls"])
def test_a_label_is_made_of_the_tokens_within_the_length(pool):
  embed = dict(position="learned" if pool == "mean" else "none", class_token="end" if pool == "cls" else "none")
  model, variables, method = ready(LABEL, head=dict(pool=pool), embed=embed)
  params = variables["params"]
  garbage = jnp.where(jnp.arange(T) < LENGTHS[:, None], TOKENS, V + 90)
  y = method("__call__")(garbage, lengths=LENGTHS)
  prefill = functools.partial(method("prefill"), garbage)
  prefilled, state = prefill(model.init_state(B, T), lengths=LENGTHS)
  close(prefilled, y)
  assert state.position.tolist() == LENGTHS.tolist()
  # no row is longer than its tokens
  longer = LENGTHS + jnp.array([90, 0])
  close(method("__call__")(garbage, lengths=longer), y)
  assert prefill(model.init_state(B, T), lengths=longer)[1].position.tolist() == LENGTHS.tolist()
  again, after = prefill(state, lengths=jnp.array([0, 0]))
  close(again, y)
  jax.tree.map(close, after, state)

  @jax.jit
  def expected(tokens):
    x = model._embed(parent=None).apply({"params": params["embed"]}, tokens, jnp.zeros(1, jnp.int32)).x
    if pool == "cls":
      x = jnp.concatenate([x, params["embed"]["class_token"][None, None]], axis=1)
    y = model._body(parent=None).apply({"params": params["body"]}, x)[0]
    pooled = jnp.mean(y, axis=0) if pool == "mean" else y[-1]
    return pooled @ params["head"]["out_proj"]["kernel"] + params["head"]["out_proj"]["bias"]

  close(y[1], expected(TOKENS[1:, : LENGTHS[1]]))


@functools.cache
def events():
  """A classifier of events by Event-SSM, and gaps before each of them; those past the lengths are NaN."""
  letters = {"s": dict(name="event_ssm", state=4), "e": dict(name="gated_mlp", inner=4)}
  model = make(LABEL, head=dict(pool="time"), pattern="se", letters=letters)
  variables = filled(model, TOKENS)
  gaps = jax.random.exponential(jax.random.key(5), (B, T)).at[0, 1].set(0.0)
  method = functools.cache(lambda name: jax.jit(functools.partial(model.apply, variables, method=name)))
  return model, variables, method, jnp.where(jnp.arange(T) < LENGTHS[:, None], gaps, jnp.nan)


@pytest.mark.slow
def test_a_label_may_be_made_of_outputs_weighed_by_time():
  model, variables, method, gaps = events()
  params = variables["params"]
  y = method("__call__")(TOKENS, lengths=LENGTHS, side={"dt": gaps})
  x = model._embed(parent=None).apply({"params": params["embed"]}, TOKENS, jnp.zeros(B, jnp.int32)).x
  outputs = model._body(parent=None).apply({"params": params["body"]}, x, lengths=LENGTHS, side={"dt": gaps})
  for row, n in enumerate(LENGTHS):
    weights = np.asarray(gaps[row, :n]) + 1e-6
    pooled = np.average(np.asarray(outputs[row, :n]), axis=0, weights=weights)
    close(y[row], pooled @ params["head"]["out_proj"]["kernel"] + params["head"]["out_proj"]["bias"])
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
  close(y, jnp.broadcast_to(variables["params"]["head"]["out_proj"]["bias"], y.shape))


def test_side_inputs_that_nobody_knows_are_named():
  model, variables, _, gaps = events()
  refused(r"side has \['gap'\]", model.apply, variables, TOKENS, side={"dt": gaps, "gap": gaps})
  model, variables, _ = ready(LABEL, embed=dict(class_token="end"), head=dict(pool="cls"))
  refused(r"the class token has no inputs of its own.*\['dt'\]", model.apply, variables, TOKENS, side={"dt": gaps})


def test_time_weighs_outputs_of_mixers_that_know_no_time():
  _, _, method = ready(LABEL, head=dict(pool="time"))
  one = lambda t: method("__call__")(TOKENS, side={"dt": jnp.zeros((B, T)).at[:, t].set(1.0)})
  even = method("__call__")(TOKENS)
  np.testing.assert_allclose(sum(one(t) for t in range(T)) / T, even, atol=1e-4)
  assert np.abs(one(0) - one(4)).max() > 1e-3


def test_tokens_past_the_length_do_not_matter():
  model, _, method = ready(embed=dict(position="learned"), head=dict(tie=False))
  garbage = jnp.where(jnp.arange(T) < LENGTHS[:, None], TOKENS, V + 90)
  y = method("__call__")(garbage, lengths=LENGTHS)
  assert np.isfinite(y).all()
  close(y[1, :3], method("__call__")(TOKENS, reset=jnp.zeros((B, T), bool))[1, :3])
  prefilled, state = method("prefill_all")(garbage, model.init_state(B, T), lengths=LENGTHS)
  close(prefilled, y)
  close(method("prefill")(garbage, model.init_state(B, T), lengths=LENGTHS)[0], y[jnp.arange(B), LENGTHS - 1])
  assert state.position.tolist() == [5, 3]


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_model_that_reads_everything_at_once_classifies(pool):
  embed = dict(class_token="end" if pool == "cls" else "none")
  model, _, method = ready(LABEL, head=dict(pool=pool), embed=embed, pattern="w")
  assert model.STATE == "none"
  y = method("__call__")(TOKENS, reset=RESET, lengths=LENGTHS)
  other = jnp.where(jnp.arange(T) < LENGTHS[:, None], TOKENS, 0)
  close(y, method("__call__")(other, reset=RESET, lengths=LENGTHS))
  refused("reads the whole sequence at once", model.init_state, 1, 2)


def test_features_are_classified():
  task = SimpleNamespace(head="classifier", vocab=None, features=2, classes=3, length=T)
  model = make(task)
  x = jax.random.normal(jax.random.key(0), (B, T, 2)).at[1, 3:].set(jnp.nan)
  variables = filled(model, x)
  loss = lambda variables: jnp.sum(jnp.square(model.apply(variables, x, lengths=LENGTHS)))
  value, gradient = jax.jit(jax.value_and_grad(loss))(variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


def test_parameters_are_counted_in_closed_form_and_named_readably():
  stack = D + 2 * D + D + 2 * D * 4 * D
  for options, more in (({}, 0), (dict(head=dict(tie=False)), V * D), (dict(embed=dict(position="learned")), T * D)):
    model = make(pattern="d-", **options)
    shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), TOKENS))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == V * D + stack + D + more
    assert set(shapes) == {"embed", "body"} | ({"head"} if "head" in options else set())


def test_logits_are_float32_in_a_bfloat16_model():
  options = dict(head=dict(tie=False), embed=dict(position="learned"))
  model, variables, method = ready(**options)
  half = make(**options, dtype="bfloat16")
  y = jax.jit(half.apply)(variables, TOKENS)
  assert y.dtype == jnp.float32
  assert np.max(np.abs(y - method("__call__")(TOKENS))) < 0.1
  _, state = jax.eval_shape(functools.partial(half.apply, method="prefill"), variables, TOKENS, half.init_state(B, T))
  assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state))


def test_a_position_beyond_the_table_is_refused_or_nan():
  model, variables, method = ready(head=dict(tie=False), embed=dict(position="learned"))
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
    (
      SimpleNamespace(head="regressor", vocab=V, length=T),
      {},
      r"no head 'regressor' .did you mean 'regression'\?\); choose from",
    ),
    (LM, dict(widht=4), r"mixer 'stack' has no field 'widht' .did you mean 'width'"),
    (LM, dict(letters={"d": dict(name="decay")}, pattern="d"), "no mixer is called 'decay'; choose from"),
    (LM, dict(letters={"d": dict(name="mlp", activation="glu")}, pattern="d"), "MLP: activation='glu'"),
    (LM, dict(embed=dict(position="rope")), "no position 'rope'"),
    (LM, dict(max_len=0), "Model: max_len=0; it must be at least 1"),
    (LM, dict(embed=dict(name="token")), "no embed 'token' .did you mean 'tokens'"),
    (LM, dict(embed=dict(sdt=1.0)), "embed 'tokens' has no field 'sdt' .did you mean 'std'"),
    (LM, dict(head=dict(vocab=3)), "head.vocab is given by the model and the task"),
    (LM, dict(embed=dict(norm={})), "no norm None; choose from"),
    (LM, dict(head=dict(std=-1.0)), "LanguageModel: std=-1.0; it must be at least 0"),
    (LM, dict(pattern="w"), "'lm' predicts the next token, which a body of STATE 'none' has seen already"),
    (LABEL, dict(head=dict(name="dual_encoder", activation="max")), "DualEncoder: activation='max'; choose from"),
    (LABEL, dict(head=dict(name="dual_encoder", inner=0)), "DualEncoder: inner=0; it must be at least 1"),
    (LABEL, dict(head=dict(pool="max")), r"no pool 'max'; choose from \['mean', 'last', 'cls', 'time'\]"),
    (LABEL, dict(head=dict(pool="cls")), "pool='cls' with embed.class_token='none'"),
    (LABEL, dict(head=dict(tie=True)), "head 'classifier' has no field 'tie'"),
  ],
)
def test_bad_settings_are_named_when_the_model_is_built(task, change, message):
  refused(message, make, task, **change)


def test_fields_of_the_model_itself_are_checked():
  refused(r"model has no field 'widht' .did you mean 'width'", build_model, LM, widht=4)
  refused(r"model needs \['body'\]", build_model, LM, width=4)


def test_learned_positions_are_as_many_as_the_task_has_tokens():
  assert make(embed=dict(position="learned"), max_len=None).positions == T
  assert make(embed=dict(position="learned"), max_len=9).positions == 9
  assert (make(max_len=None).positions, make(max_len=None).longest) == (None, None)


def batch(**more):
  weights = jnp.ones((B, T)).at[1, 3:].set(0)
  return {"inputs": TOKENS, "targets": jnp.roll(TOKENS, -1, axis=1), "weights": weights, **more}


@pytest.mark.parametrize("head", [{}, dict(tie=False, softcap=2.0, scale=0.5)], ids=["tied", "capped"])
def test_the_loss_by_chunks_is_that_of_all_logits(head):
  model, variables, method = ready(head=dict(head, chunk=4))
  whole = cross_entropy(method("__call__")(TOKENS), batch()["targets"], batch()["weights"])
  jax.tree.map(close, method("loss")(batch()), whole)
  one = make(head=dict(head, chunk=100))
  gradient = lambda model: jax.jit(jax.grad(lambda variables: measure(model, variables, batch())[0]))(variables)
  jax.tree.map(close, gradient(model), gradient(one))


def test_logits_of_a_whole_batch_are_never_in_memory():
  """Neither forward nor backward has an array as large as all logits."""
  task = SimpleNamespace(head="lm", vocab=1000, features=None, classes=None, length=64)
  largest = {}
  for chunk in (16, 10000):
    model = make(task, head=dict(chunk=chunk), max_len=None)
    batch = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in model.example(4, 64).items()}
    loss = jax.grad(lambda variables, model=model, batch=batch: measure(model, variables, batch)[0])
    shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), batch["inputs"]))
    largest[chunk] = max(sizes(jax.make_jaxpr(loss)(shapes).jaxpr))
  assert largest[10000] == 4 * 64 * 1000
  assert largest[16] == 4 * 4 * 1000


def sizes(jaxpr):
  """Sizes of all arrays that a program makes."""
  for equation in jaxpr.eqns:
    yield from (math.prod(var.aval.shape) for var in equation.outvars)
    for inner in jax.core.jaxprs_in_params(equation.params):
      yield from sizes(inner)


def test_the_loss_can_be_resumed():
  model, variables, method = ready(embed=dict(position="sinusoidal"))
  state, total = model.init_state(B, T), None
  for start, end in ((0, 2), (2, 5)):
    sums, state = method("resume_loss")({name: value[:, start:end] for name, value in batch().items()}, state)
    total = sums if total is None else jax.tree.map(jnp.add, total, sums)
  jax.tree.map(close, total, method("loss")(batch()))


def test_what_mixers_and_heads_sow_joins_the_objective():
  model, variables, _ = ready(pattern="c", letters={"c": dict(name="tests.hybrids.toys.Centre")}, head=dict(z_loss=0.5))
  value, sums, changed, _ = jax.jit(lambda variables: measure(model, variables, batch(), mutable=["batch_stats"]))(
    variables
  )
  assert set(sums) == {"loss", "accuracy", "losses/size", "losses/z"}
  assert set(changed) == {"batch_stats"}
  parts = [total / weight for total, weight in (sums[name] for name in ("loss", "losses/size", "losses/z"))]
  assert all(part > 0 for part in parts)
  close(value, sum(parts))
  logits = jax.jit(model.apply)({**variables, **changed}, TOKENS)
  assert logits.shape == (B, T, V)
  plain = make(pattern="c", letters={"c": dict(name="tests.hybrids.toys.Centre")})
  assert "losses/z" not in jax.eval_shape(lambda variables: measure(plain, variables, batch())[1], variables)


def test_parameters_may_be_kept_in_bfloat16():
  """All but slow ones; results stay close to those of float32."""
  letters = {"m": dict(name="mamba", state=4)}
  body = dict(name="stack", depth=2, pattern="m", letters=letters)
  model = Model(vocab=V, width=8, body=body, param_dtype="bfloat16")
  boxed = jax.jit(model.init)(jax.random.key(0), TOKENS)
  variables = meta.unbox(boxed)
  slow = jax.tree.map(lambda leaf: leaf.slow, boxed["params"], is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata))
  kinds = jax.tree.map(lambda leaf, slow: (leaf.dtype == jnp.float32, slow), variables["params"], slow)
  assert all(dtype == slow for dtype, slow in jax.tree.leaves(kinds, is_leaf=lambda leaf: isinstance(leaf, tuple)))
  assert variables["params"]["body"]["m"]["mixer"]["in_proj"]["kernel"].dtype == jnp.bfloat16
  wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables)
  same = jax.jit(model.apply)(variables, TOKENS)
  assert same.dtype == jnp.float32
  close(same, jax.jit(model.apply)(wide, TOKENS))
  gradient = jax.eval_shape(jax.grad(lambda variables: measure(model, variables, batch())[0]), variables)
  assert jax.tree.map(lambda leaf: leaf.dtype, gradient) == jax.tree.map(lambda leaf: leaf.dtype, variables)
