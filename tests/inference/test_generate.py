"""Generation is the parallel form applied again and again, however rows are padded and calls are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference import generate, make_sampler
from inference.context import fork
from inference.generate import as_tokens
from tests.inference.models import PATTERNS, VOCAB, language_model, made, variables_of
from tests.refused import refused

NEW = 6
SAMPLER = make_sampler(temperature=1.0, top_k=8, top_p=0.95, repetition_penalty=1.2)
PROMPTS = [[3, 1, 4, 1, 5], [2, 7, 1], [9]]
KEYS = jax.random.split(jax.random.key(3), len(PROMPTS))
SETTINGS = dict(max_new_tokens=NEW, sampler=SAMPLER, rng=KEYS)


# the hybrid has a state of either kind
@pytest.fixture(
  scope="module", params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind != "hybrid")) for kind in PATTERNS]
)
def kind(request) -> str:
  return request.param


@pytest.fixture(scope="module")
def drawn(kind):
  """What one call draws for all prompts."""
  return generate(*made(kind), PROMPTS, **SETTINGS)


def by_hand(model, variables, prompt: list[int], new: int) -> tuple[list[int], list[float]]:
  """Greedy, the whole sequence anew for every token; and the log-probabilities."""
  call = jax.jit(lambda tokens: jax.nn.log_softmax(model.apply(variables, tokens)))
  tokens, logprobs = np.zeros((1, 16), np.int32), []
  tokens[0, : len(prompt)] = prompt
  for n in range(len(prompt), len(prompt) + new):
    row = call(tokens)[0, n - 1]
    tokens[0, n] = np.argmax(row)
    logprobs.append(float(np.max(row)))
  return tokens[0, len(prompt) : len(prompt) + new].tolist(), logprobs


def test_greedy_tokens_are_those_of_the_parallel_form_at_ragged_lengths(kind):
  found = generate(*made(kind), PROMPTS, max_new_tokens=NEW)
  want, logprobs = zip(*[by_hand(*made(kind), prompt, NEW) for prompt in PROMPTS])
  assert found.rows() == list(want)
  np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-4)
  assert len({token for row in want for token in row}) > 2, "the model says nothing worth comparing"


def test_a_batch_is_its_rows_one_by_one(kind, drawn):
  for row, prompt in enumerate(PROMPTS):
    alone = generate(*made(kind), [prompt], **SETTINGS | {"rng": KEYS[row : row + 1]})
    assert alone.rows() == drawn.rows()[row : row + 1]
    np.testing.assert_allclose(alone.logprobs[0], drawn.logprobs[row], atol=1e-4)


def test_going_on_equals_one_call(kind, drawn):
  first = generate(*made(kind), PROMPTS, room=32, **SETTINGS | {"max_new_tokens": 2})
  for _ in range(2):
    # twice, as a context given is left as it was
    second = generate(*made(kind), None, context=first.context, **SETTINGS | {"max_new_tokens": NEW - 2})
    assert [a + b for a, b in zip(first.rows(), second.rows())] == drawn.rows()


def test_a_new_turn_equals_the_whole_text_at_once(kind):
  settings, turns = SETTINGS | {"max_new_tokens": 2}, [[8, 6], [], [1, 2, 3]]
  first = generate(*made(kind), PROMPTS, room=32, **settings)
  second = generate(*made(kind), turns, context=first.context, **settings)
  whole = [a + b + c for a, b, c in zip(PROMPTS, first.rows(), turns)]
  assert second.rows() == generate(*made(kind), whole, room=32, **settings).rows()


def test_a_stop_sequence_ends_its_row_alone_and_leaves_it_fit_to_go_on(kind):
  settings = SETTINGS | {"room": 32}
  free = generate(*made(kind), PROMPTS, **settings | {"max_new_tokens": 9}).rows()
  stop = [free[0][1:3], [VOCAB - 1] * 9]
  want = [cut_after(row[:NEW], stop[0]) for row in free]
  assert len(want[0]) < NEW == max(map(len, want))
  found = generate(*made(kind), PROMPTS, stop=stop, **settings)
  assert found.rows() == want
  assert found.stopped.tolist() == [row[-2:] == stop[0] for row in want]
  rest = generate(*made(kind), None, context=found.context, **SETTINGS | {"max_new_tokens": 3})
  assert [a + b for a, b in zip(want, rest.rows())] == [row[: len(a) + 3] for a, row in zip(want, free)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mla", "hyena", "mega", "titans_mag", "rwkv7"])
def test_states_of_other_forms_stand_still_where_a_row_has_ended(name):
  body = {"name": "stack", "depth": 1, "pattern": "m", "letters": {"m": {"name": name}}}
  made = (language_model(body=body, max_len=64),)
  made += (variables_of(*made),)
  settings = dict(max_new_tokens=6, sampler=make_sampler(), rng=KEYS)
  free = generate(*made, PROMPTS, room=32, **settings | {"max_new_tokens": 9}).rows()
  found = generate(*made, PROMPTS, room=32, stop=[free[0][1:3]], **settings)
  rest = generate(*made, None, context=found.context, **settings | {"max_new_tokens": 3}).rows()
  assert len(found.rows()[0]) < 6
  assert [a + b for a, b in zip(found.rows(), rest)] == [row[: len(a) + 3] for a, row in zip(found.rows(), free)]


def cut_after(row: list[int], stop: list[int]) -> list[int]:
  ends = [n for n in range(len(stop), len(row) + 1) if row[n - len(stop) : n] == stop]
  return row[: ends[0]] if ends else row


def test_a_prompt_read_in_pieces_is_the_same():
  prompts = [np.arange(50) % VOCAB, *PROMPTS[1:]]
  whole = generate(*made("hybrid"), prompts, **SETTINGS)
  assert generate(*made("hybrid"), prompts, prefill_chunk=16, **SETTINGS).rows() == whole.rows()


def test_pieces_are_called_back_as_they_are_drawn():
  pieces = []
  found = generate(*made("hybrid"), PROMPTS, **SETTINGS | {"max_new_tokens": 20}, callback=pieces.append)
  assert [piece.tokens.shape for piece in pieces] == [(3, 16), (3, 4)]
  assert np.array_equal(np.concatenate([piece.tokens for piece in pieces], axis=1), found.tokens)
  assert generate(*made("hybrid"), PROMPTS, **SETTINGS | {"max_new_tokens": 20}).rows() == found.rows()


def test_a_bias_forbids_and_forces():
  draw = lambda bias: generate(*made("hybrid"), PROMPTS, max_new_tokens=NEW, logit_bias=bias)
  common = draw({0: 0.0}).rows()[0][0]
  assert all(common not in row for row in draw({common: -np.inf}).rows())
  forced = draw({4: 1e4})
  assert forced.rows() == [[4] * NEW] * 3
  assert float(forced.logprobs.min()) < -0.1, "log-probabilities are the model's own, without the bias"


def test_samples_of_one_prompt_equal_separate_ones_with_the_same_keys():
  forked = generate(*made("hybrid"), PROMPTS[:1], num_return_sequences=3, **SETTINGS)
  assert forked.rows() == generate(*made("hybrid"), PROMPTS[:1] * 3, **SETTINGS).rows()
  assert len({tuple(row) for row in forked.rows()}) == 3, "the samples are the same"
  # a context can be forked as well
  context = generate(*made("hybrid"), PROMPTS[:1], **SETTINGS | {"rng": KEYS[:1], "room": 32}).context
  more = generate(*made("hybrid"), None, context=fork(context, 3), **SETTINGS).rows()
  assert len({tuple(row) for row in more}) > 1


def test_seeds_differ():
  draw = lambda seed: generate(*made("hybrid"), PROMPTS, **SETTINGS | {"rng": jax.random.key(seed)}).rows()
  assert draw(9) != draw(8)


BAD = [
  (dict(prompts=[]), "there are no prompts"),
  (dict(prompts=[[1], []]), r"the prompt has no tokens \(row 1\)"),
  (dict(prompts=[[1, VOCAB]]), "row 0 has token 11; the model's are 0 … 10"),
  (dict(prompts=[[True, True]]), "row 0 has bool in it; tokens are whole numbers"),
  (dict(prompts=[np.array([2**32 + 1])]), "row 0 has token 4294967297; the model's are 0 … 10"),
  (dict(max_new_tokens=0), "max_new_tokens=0"),
  (dict(num_return_sequences=0), "num_return_sequences=0"),
  (dict(prefill_chunk=0), "prefill_chunk=0"),
  (dict(max_new_tokens=4092), r"5 tokens of prompt and 4092 new ones are 4097, .* max_len=4096; ask for at most 4091"),
  (dict(room=5000), "room for 5000 tokens is asked for, but the model has max_len=4096"),
  (dict(sampler=make_sampler()._replace(temperature=-1.0)), r"temperature=-1\.0"),
  (dict(logit_bias={1: 1e39}), r"logit_bias\[1\]=1e\+39; give a finite number"),
  (dict(stop=[[]]), "a stop sequence has 0 tokens; it must have 1 to 64"),
  (dict(stop=[[11]]), r"stop sequence \[11\] has a token outside"),
  (dict(logit_bias={11: 1.0}), "logit_bias names token 11"),
  (dict(logit_bias={1: np.inf}), r"logit_bias\[1\]=inf"),
  (dict(logit_bias=dict.fromkeys(range(11), -np.inf)), "forbids every token"),
  (dict(rng=KEYS[:2]), "rng has 2 keys for 3 rows"),
]


@pytest.mark.parametrize(
  "prompt, message",
  [
    (5, r"row 2 is the one token 5; give a list of token sequences, e.g. \[\[1, 2, 3\]\]"),
    ("def ", "row 2 is text; give its tokens"),
    (["def ", "class "], "row 2 is text; give its tokens"),
    ([[1, 2], [3, 4]], "row 2 is an array of 2 axes"),
    ([1.5], "row 2 has float64 in it; tokens are whole numbers"),
  ],
)
def test_a_prompt_is_a_sequence_of_tokens(prompt, message):
  refused(message, as_tokens, prompt, 2)


@pytest.mark.parametrize("kwargs, message", BAD, ids=[message for _, message in BAD])
def test_what_cannot_be_generated_is_an_error(kwargs, message):
  kwargs = dict(prompts=PROMPTS, max_new_tokens=NEW) | kwargs
  refused(message, lambda: generate(*made("hybrid"), kwargs.pop("prompts"), **kwargs))


def test_a_context_refuses_what_does_not_fit_it():
  first = generate(*made("hybrid"), PROMPTS, max_new_tokens=2)
  with pytest.raises(ValueError, match="2 prompts for a context of 3 rows"):
    generate(*made("hybrid"), PROMPTS[:2], context=first.context, max_new_tokens=2)
  with pytest.raises(ValueError, match=r"7 tokens of prompt and 10 new ones are 17, but the context has room=16"):
    generate(*made("hybrid"), None, context=first.context, max_new_tokens=10)


def test_a_fork_has_copies():
  refused("fork: count=0; give at least 1", fork, generate(*made("hybrid"), PROMPTS, max_new_tokens=2).context, 0)


def test_a_model_without_a_next_token_is_refused():
  masked = language_model("m", head={"name": "masked_lm"})
  refused("'masked_lm', which predicts no next token", generate, masked, {}, PROMPTS, max_new_tokens=2)


def test_learned_positions_bound_the_length_and_a_fixed_state_does_not():
  fixed = language_model(pattern="m", max_len=16)
  assert generate(fixed, variables_of(fixed), PROMPTS, max_new_tokens=20).tokens.shape == (3, 20)
  learned = language_model(pattern="m", max_len=16, embed={"position": "learned"})
  refused("max_len=16; ask for at most 11 new tokens", generate, learned, {}, PROMPTS, max_new_tokens=20)


def test_a_prompt_fills_a_table_of_positions_of_any_length():
  body = {"name": "stack", "depth": 1, "pattern": "-", "letters": {"-": {"name": "mlp"}}}
  model = language_model(body=body, max_len=20, embed={"position": "learned"})
  variables, prompt = variables_of(model), np.arange(18) % VOCAB
  found = generate(model, variables, [prompt], max_new_tokens=2).rows()[0]
  logits = model.apply(variables, jnp.array([[*prompt, found[0]]], jnp.int32))
  assert found == jnp.argmax(logits[0, 17:], axis=-1).tolist()


def test_broken_parameters_are_an_error():
  model, variables = made("hybrid")
  with pytest.raises(ValueError, match="row 0 has NaN logits at its new token 0"):
    generate(model, jax.tree.map(lambda x: x * jnp.nan, variables), PROMPTS, max_new_tokens=NEW)
