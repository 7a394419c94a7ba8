"""Speculative decoding gives the large model's tokens: the same ones if greedy, equally distributed if drawn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference import generate, make_sampler
from inference.sampling import filtered
from inference.speculative import pieces, speculate
from tests.inference.models import language_model, made, variables_of

PROMPTS = [[3, 1, 4, 1, 5], [2, 7, 1], [9]]
NEW, VOCAB = 10, 4


@pytest.mark.parametrize(
  "large, small",
  [
    ("hybrid", "mamba"),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("hybrid", "hybrid"), ("mamba", "attention"))),
  ],
)
def test_greedy_tokens_are_those_of_the_large_model(large, small):
  want = generate(*made(large), PROMPTS, max_new_tokens=NEW)
  found = speculate(*made(large), *made(small), PROMPTS, max_new_tokens=NEW, num_speculative_tokens=3)
  assert found.tokens.tolist() == want.tokens.tolist()
  assert found.lengths.tolist() == [NEW] * 3
  if large == small:
    assert found.rounds.tolist() == [3] * 3, "each round keeps its three proposals and adds a token"
  else:
    assert (found.rounds > 3).all()


def test_a_stop_sequence_ends_a_row():
  rows = generate(*made("hybrid"), PROMPTS, max_new_tokens=NEW).rows()
  settings = dict(max_new_tokens=NEW, stop=[rows[0][3:5]])
  want = generate(*made("hybrid"), PROMPTS, **settings)
  found = speculate(*made("hybrid"), *made("hybrid"), PROMPTS, num_speculative_tokens=3, **settings)
  assert found.tokens.tolist() == want.tokens.tolist()
  assert found.stopped.tolist() == want.stopped.tolist()
  assert found.stopped[0]


def test_what_is_asked_for_in_pieces_and_turns_is_one_text():
  """Greedy, with a token forbidden, as the large model alone goes on; a row that has stopped stays as it is."""
  large, small, more = made("hybrid"), made("mamba"), [[1], [2, 3], [4]]
  unwanted = generate(*large, PROMPTS, max_new_tokens=NEW).rows()[0][2]
  settings = dict(logit_bias={unwanted: -np.inf}, max_new_tokens=NEW, room=60)
  settings["stop"] = [generate(*large, PROMPTS, **settings).rows()[1][4:5]]
  want = generate(*large, PROMPTS, **settings)
  again = generate(*large, more, context=want.context, **settings)
  models, variables = zip(large, small)
  settings["num_speculative_tokens"] = 3
  found = list(pieces(models, variables, PROMPTS, chunk=4, **settings))
  rows = [sum((piece.tokens[i, : piece.lengths[i]].tolist() for piece in found), []) for i in range(3)]
  assert rows == want.rows()
  assert found[-1].stopped.tolist() == want.stopped.tolist()
  assert want.stopped[1]
  assert unwanted not in rows[0]
  both = found[-1].contexts
  for name in ("last", "recent", "seen"):
    np.testing.assert_array_equal(getattr(both[0], name), getattr(want.context, name))
  after = speculate(*large, *small, more, contexts=both, **settings)
  np.testing.assert_array_equal(after.tokens, again.tokens)


@pytest.mark.slow
def test_draws_are_distributed_as_those_of_the_large_model():
  large, small = language_model("m", vocab=VOCAB), language_model("a", vocab=VOCAB)
  theirs = {
    model: jax.tree.map(lambda x: 0.5 * x, variables_of(model, seed)) for model, seed in ((large, 3), (small, 4))
  }
  sampler, rows, prompt = make_sampler(0.8, top_k=3), 6000, [3, 1]
  found = speculate(
    large,
    theirs[large],
    small,
    theirs[small],
    [prompt] * rows,
    max_new_tokens=3,
    num_speculative_tokens=2,
    sampler=sampler,
  )
  texts = np.array(list(itertools.product(range(VOCAB), repeat=3)))
  counts = np.bincount(np.asarray(found.tokens) @ [VOCAB**2, VOCAB, 1], minlength=VOCAB**3)

  def chi_squared(model) -> tuple[float, int]:
    """Pearson's statistic against the model's own probabilities, and its degrees of freedom."""
    lines = jnp.array([[*prompt, *text] for text in texts])
    logits = jax.jit(model.apply)(theirs[model], lines)[:, 1:-1]
    each = jax.nn.softmax(filtered(logits, sampler), axis=-1)
    expected = rows * np.asarray(jnp.take_along_axis(each, texts[:, :, None], axis=2)).prod(axis=(1, 2))
    some = expected > 1
    assert counts[expected == 0].sum() == 0 or model is small
    return float((((counts - expected) ** 2)[some] / expected[some]).sum()), int(some.sum()) - 1

  value, freedom = chi_squared(large)
  # four standard deviations of the statistic
  assert value < freedom + 4 * np.sqrt(2 * freedom), (value, freedom)
  value, freedom = chi_squared(small)
  assert value > freedom + 40 * np.sqrt(2 * freedom), "the models are too much alike to tell them apart"
  assert 1 < float(3 / found.rounds.mean()) < 3, "nothing or everything was kept"


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(num_speculative_tokens=0), "num_speculative_tokens=0"),
    (dict(max_new_tokens=0), "max_new_tokens=0"),
    (dict(prefill_chunk=0), "speculate: prefill_chunk=0; give at least 1"),
    (dict(max_new_tokens=4089), "4089 new ones, with 4 that .* beyond, are 4098, .* at most 4087 new"),
    (dict(sampler=make_sampler(repetition_penalty=1.2)), "repetition_penalty=1.2 is not possible here"),
  ],
)
def test_what_cannot_be_done_is_an_error(kwargs, message):
  with pytest.raises(ValueError, match=message):
    speculate(*made("hybrid"), *made("mamba"), PROMPTS, **dict(max_new_tokens=NEW) | kwargs)


def test_another_vocabulary_is_refused():
  other = language_model("m", vocab=12)
  with pytest.raises(ValueError, match="the draft model has vocab=12 and the model 11"):
    speculate(*made("hybrid"), other, {}, PROMPTS, max_new_tokens=NEW)
