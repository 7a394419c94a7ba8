"""Tokens and features become vectors that know where they stand in their document."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict, meta

from hybrids.embed import Embedded
from hybrids.embed.features import ConvStem, Features, Patches
from hybrids.embed.tokens import Tokens
from hybrids.head.classifier import Classifier
from hybrids.head.head import Outputs
from kernels.documents import positions
from layers.positions import sinusoidal
from tests.hybrids.filled import filled
from tests.refused import refused

B, T, D = 2, 5, 4
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, 7)
START = jnp.array([0, 3])
RESET = jnp.zeros((B, T), bool).at[0, 2].set(True).at[1, 4].set(True)
LENGTHS = jnp.array([5, 3])
close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)


@functools.cache
def fresh(**kwargs):
  module = Tokens(width=D, vocab=7, **kwargs)
  return module, filled(module, TOKENS, START)


def test_a_vector_is_that_of_the_token_plus_that_of_the_position():
  for kind in ("learned", "sinusoidal"):
    module, variables = fresh(position=kind, max_len=6)
    params = variables["params"]
    where, following = positions(START, T, reset=RESET)
    added = params["positions"][where] if kind == "learned" else sinusoidal(where, D)
    x, after = module.apply(variables, TOKENS, START, reset=RESET)[:2]
    # one row of the learned case has a position that the table lacks
    inside = slice(0, 1) if kind == "learned" else slice(None)
    close(x[inside], (params["embedding"][TOKENS] + added)[inside])
    assert after.tolist() == following.tolist()


def test_a_position_beyond_the_table_turns_its_row_to_nan():
  module, variables = fresh(position="learned", max_len=6)
  bad = lambda **kwargs: np.isnan(module.apply(variables, TOKENS, START, **kwargs)[0]).all(axis=(1, 2)).tolist()
  assert bad() == [False, True]
  assert bad(lengths=LENGTHS) == [False, False], "what stands past the length does not count"
  x = module.apply(variables, TOKENS[:, 0], jnp.array([5, 6]), method="step").x
  assert np.isnan(x).all(axis=1).tolist() == [False, True]


def test_more_tokens_than_the_table_are_refused_unless_documents_are_packed():
  module, variables = fresh(position="learned", max_len=6)
  long = jnp.zeros((1, 8), jnp.int32)
  with pytest.raises(ValueError, match="8 tokens, but position='learned' has a table of max_len=6; raise max_len"):
    module.apply(variables, long, jnp.zeros(1, jnp.int32))
  packed = jnp.zeros((1, 8), bool).at[0, 4].set(True)
  assert np.isfinite(module.apply(variables, long, jnp.zeros(1, jnp.int32), reset=packed)[0]).all()


def test_a_token_outside_the_vocabulary_is_nan():
  module, variables = fresh()
  x = module.apply(variables, jnp.array([[0, 7], [-1, 6]]), START).x
  assert np.isnan(x).all(axis=-1).tolist() == [[False, True], [True, False]]


def test_tables_start_small():
  module = Tokens(width=64, vocab=100, position="learned", max_len=90)
  variables = meta.unbox(jax.jit(module.init)(jax.random.key(1), TOKENS, START))
  for table in jax.tree.leaves(variables):
    close(np.std(table), 0.02, rtol=0.05)


def test_the_dtype_is_set_here():
  module, variables = fresh(dtype="bfloat16")
  assert module.apply(variables, TOKENS, START)[0].dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_features_are_mapped_and_nan_past_the_lengths_is_ignored():
  module = Features(width=D, features=3)
  x = jax.random.normal(jax.random.key(0), (B, T, 3)).at[1, 3:].set(jnp.nan)
  variables = filled(module, x, START)
  run = lambda variables: jnp.sum(module.apply(variables, x, START, lengths=LENGTHS)[0])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(run))(variables)))
  params = variables["params"]["in_proj"]
  close(module.apply(variables, x[:, 0], START, method="step")[0], x[:, 0] @ params["kernel"] + params["bias"])


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(vocab=None), "embed.name='tokens', but the task has no vocab"),
    (dict(class_token="front"), r"class_token='front'; choose from \['none', 'start', 'middle', 'end'\]"),
    (dict(norm=dict(name="batsch")), "no norm 'batsch'; choose from"),
    (dict(vocab=0), "vocab=0; it is at least 1"),
    (dict(position="rope"), r"no position 'rope'; choose from \['none', 'learned', 'sinusoidal'\]"),
    (dict(position="sinusoidal", width=5), "needs an even width, not 5"),
    (dict(max_len=0), "max_len=0"),
    (dict(std=0.0), "std=0.0; it is a standard deviation above 0"),
    (dict(position_std=-1.0), "position_std=-1.0; it is a standard deviation above 0"),
    (dict(dtype="float16"), r"dtype='float16'; choose from \['float32', 'bfloat16'\]"),
  ],
  ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_when_it_is_made(change, message):
  refused(message, Tokens, **{**dict(width=D, vocab=7), **change})


def test_learned_positions_may_start_smaller_than_the_tokens():
  def spread(**kwargs):
    module = Tokens(width=64, vocab=64, position="learned", max_len=64, std=1.0, **kwargs)
    params = meta.unbox(module.init(jax.random.key(0), TOKENS, START))["params"]
    return {name: float(leaf.std()) for name, leaf in params.items()}

  assert spread() == pytest.approx({"embedding": 1.0, "positions": 1.0}, rel=0.1)
  assert spread(position_std=0.02) == pytest.approx({"embedding": 1.0, "positions": 0.02}, rel=0.1)


def test_a_classifier_may_have_a_layer_between():
  head = Classifier(width=D, classes=3, inner=5)
  outputs = Outputs(jax.random.normal(jax.random.key(0), (B, T, D)), jnp.array([T, 2]))
  variables = meta.unbox(head.init(jax.random.key(1), outputs, head.init_state(B), method="answer"))
  w = variables["params"]
  mean = np.stack([outputs.y[0].mean(axis=0), outputs.y[1, :2].mean(axis=0)])
  hidden = np.maximum(mean @ w["in_proj"]["kernel"] + w["in_proj"]["bias"], 0)
  assert hidden.min() == 0 < hidden.max()
  answer, _ = head.apply(variables, outputs, head.init_state(B), method="answer")
  close(answer, hidden @ w["out_proj"]["kernel"] + w["out_proj"]["bias"])
  refused("Classifier: inner=0; it must be at least 1", Classifier, width=D, classes=3, inner=0)
  refused("activation='tanhh'; choose from", Classifier, width=D, classes=3, activation="tanhh")


def test_parts_that_a_task_has_nothing_for_are_called_by_their_names():
  refused("embedding ConvStem reads features, but the task has none", ConvStem, width=D, vocab=7)
  refused("head Classifier chooses among classes, but the task has none", Classifier, width=D)


def test_inputs_of_the_wrong_kind_are_refused():
  module, variables = fresh()
  with pytest.raises(ValueError, match="inputs are float32; a model of vocab=7 wants integer tokens"):
    module.apply(variables, jnp.zeros((B, T, 1)), START)


def test_a_class_token_stands_at_start_middle_or_end_of_each_row():
  x = jnp.broadcast_to(jnp.arange(1.0, T + 1)[:, None], (B, T, D))
  for place, expected in (
    ("start", [[0, 1], [0, 1]]),
    ("middle", [[1, 2, 0, 3], [1, 0, 2]]),
    ("end", [[4, 5, 0], [3, 0]]),
  ):
    module, variables = fresh(class_token=place)
    variables = {"params": {**variables["params"], "class_token": jnp.zeros(D)}}
    embedded = Embedded(x, START, None, LENGTHS, None)
    after = module.apply(variables, embedded, method="insert")
    assert after.lengths.tolist() == [6, 4]
    for row, part in enumerate(expected):
      n, where = int(after.lengths[row]), int(after.place[row])
      first = {"start": 0, "middle": where - len(part) + 2, "end": where - len(part) + 1}[place]
      assert after.x[row, first : first + len(part), 0].tolist() == part
      assert sorted(after.x[row, :n, 0].tolist()) == [0, *range(1, n)]


def test_a_class_token_at_the_end_belongs_to_the_last_document():
  module, variables = fresh(class_token="end")
  embedded = Embedded(jnp.ones((B, T, D)), START, RESET, LENGTHS, None)
  after = module.apply(variables, embedded, method="insert")
  assert np.asarray(after.reset).astype(int).tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
  module, variables = fresh(class_token="middle")
  refused("class_token='middle' of packed documents", module.apply, variables, embedded, method="insert")


def test_patches_are_squares_of_the_image_row_by_row():
  module = Patches(width=D, features=2, size=2, position="learned", max_len=4)
  image = jax.random.normal(jax.random.key(0), (B, 4, 4, 2))
  pixels = image.reshape(B, 16, 2)
  variables = filled(module, pixels, START)
  x = module.apply(variables, pixels, jnp.zeros(B, jnp.int32)).x
  params = variables["params"]
  patch = image[:, 2:4, 0:2].reshape(B, 8)
  expected = patch @ params["in_proj"]["kernel"] + params["in_proj"]["bias"] + params["positions"][2]
  close(x[:, 2], expected, rtol=1e-5, atol=1e-5)
  with pytest.raises(ValueError, match="size=3 does not divide an image of 4 by 4 pixels"):
    Patches(width=D, features=2, size=3).apply(variables, pixels, START)
  refused("'patches' reads whole images", module.apply, variables, pixels, START, lengths=LENGTHS)


def test_scale_and_norm_come_before_the_body():
  module, variables = fresh(scale=3.0)
  plain, _ = fresh()
  close(module.apply(variables, TOKENS, START).x, 3 * plain.apply(variables, TOKENS, START).x)
  module, variables = fresh(norm=FrozenDict(name="layer"))
  variables = {"params": {**variables["params"], "norm_in": {"scale": jnp.ones(D), "bias": jnp.zeros(D)}}}
  x = module.apply(variables, TOKENS, START).x
  close(np.mean(x, axis=-1), 0, atol=1e-5)
