"""Beam search against all continuations there are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.beam import beam_search
from tests.inference.models import language_model, variables_of

VOCAB, NEW, END = 4, 4, 2
PROMPTS = [[3, 1, 0], [1]]


@pytest.fixture(scope="module", params=["m", "aw"])
def made(request):
  model = language_model(request.param, vocab=VOCAB)
  return model, variables_of(model)


def every_continuation(model, variables, prompt: list[int], penalty: float) -> list[tuple[float, list[int]]]:
  """The score of each sequence that ends in END or has NEW tokens, the best first."""
  texts = jnp.array([[*prompt, *rest] for rest in itertools.product(range(VOCAB), repeat=NEW)])
  logprobs = jax.nn.log_softmax(jax.jit(model.apply)(variables, texts))[:, len(prompt) - 1 : -1]
  new = np.asarray(texts)[:, len(prompt) :]
  each = np.take_along_axis(np.asarray(logprobs), new[:, :, None], axis=2)[..., 0]
  found = {}
  for row, values in zip(new.tolist(), each):
    length = row.index(END) + 1 if END in row else NEW
    found[tuple(row[:length])] = values[:length].sum() / length**penalty
  return sorted(((score, list(row)) for row, score in found.items()), reverse=True)


@pytest.mark.parametrize("penalty", [1.0, *(pytest.param(p, marks=pytest.mark.slow) for p in (0.0, 2.0, -1.0))])
def test_a_wide_beam_finds_the_best_of_all(made, penalty):
  beams = 3 * VOCAB**2
  found = beam_search(*made, PROMPTS, max_new_tokens=NEW, num_beams=beams, length_penalty=penalty, stop=[[END]])
  for row, prompt in enumerate(PROMPTS):
    want = every_continuation(*made, prompt, penalty)[:6]
    np.testing.assert_allclose(found.scores[row, :6], [score for score, _ in want], atol=1e-4)
    for place, (_, tokens) in enumerate(want):
      assert found.tokens[row, place, : found.lengths[row, place]].tolist() == tokens
      assert not found.tokens[row, place, found.lengths[row, place] :].any()


def test_a_narrow_beam_equals_the_search_by_hand(made):
  """Without stops, so that the n likeliest prefixes stay at every step."""
  model, variables = made
  found = beam_search(model, variables, PROMPTS[:1], max_new_tokens=NEW, num_beams=2)
  call, width = jax.jit(lambda tokens: jax.nn.log_softmax(model.apply(variables, tokens))), len(PROMPTS[0])
  live = [(0.0, [])]
  for n in range(NEW):
    rows = np.zeros((2, width + NEW), np.int32)
    for row, (_, tokens) in zip(rows, live):
      row[: width + n] = PROMPTS[0] + tokens
    logprobs = np.asarray(call(rows))[:, width + n - 1]
    live = [(score + logprobs[i, v], [*tokens, v]) for i, (score, tokens) in enumerate(live) for v in range(VOCAB)]
    live = sorted(live, reverse=True)[:2]
  assert found.tokens[0].tolist() == [tokens for _, tokens in live]
  np.testing.assert_allclose(found.scores[0], [score / NEW for score, _ in live], atol=1e-4)


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(num_beams=0), "num_beams=0; give at least 1"),
    (dict(max_new_tokens=0), "max_new_tokens=0"),
    (dict(length_penalty=float("nan")), "length_penalty=nan"),
    (dict(prompts=[[]]), "the prompt has no tokens"),
    (dict(max_new_tokens=5000), "max_len=4096"),
  ],
)
def test_what_cannot_be_searched_is_an_error(kwargs, message):
  kwargs = dict(prompts=PROMPTS, max_new_tokens=NEW, num_beams=2) | kwargs
  with pytest.raises(ValueError, match=message):
    beam_search(language_model("aw", vocab=VOCAB), {}, kwargs.pop("prompts"), **kwargs)
