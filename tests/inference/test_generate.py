"""Generation is the parallel form applied again and again, however rows are padded and calls are cut."""

import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.model import Model
from inference import generate, make_sampler
from inference import stream as streams

MIXERS = {"m": {"name": "mamba", "state": 4}, "a": {"name": "softmax", "heads": 2}}
NEW, SEED = 6, 3
SAMPLER, RNG = make_sampler(temperature=1.0, top_k=8, top_p=0.95), jax.random.key(SEED)
PROMPT = np.array([[3, 1, 4, 1, 5], [2, 7, 1, 0, 0]], np.int32)
LENGTHS = np.array([5, 3])


def language_model(pattern: str = "ma", **kwargs) -> Model:
  body = {"name": "stack", "depth": len(pattern), "pattern": pattern, "letters": MIXERS}
  return Model(**{"vocab": 11, "width": 8, "body": body} | kwargs)


def variables_of(model: Model) -> dict:
  variables = jax.jit(model.init)(jax.random.key(0), jnp.asarray(PROMPT))
  # far from uniform, so that a wrong state shows in the tokens
  keys = iter(jax.random.split(jax.random.key(1), 1000))
  return jax.tree.map(lambda x: x + 0.5 * jax.random.normal(next(keys), x.shape), variables)


@pytest.fixture(scope="module")
def model() -> Model:
  return language_model()


@pytest.fixture(scope="module")
def variables(model) -> dict:
  return variables_of(model)


@pytest.fixture(scope="module")
def drawn(model, variables) -> np.ndarray:
  """What one call draws."""
  return np.asarray(generate(model, variables, PROMPT, lengths=LENGTHS, max_new=NEW, sampler=SAMPLER, rng=RNG)[0])


def by_hand(model, variables, prompt: np.ndarray, new: int) -> list[int]:
  """Greedy, the whole sequence anew for every token."""
  call = jax.jit(lambda tokens, lengths: model.apply(variables, tokens, lengths=lengths))
  tokens = np.zeros((1, PROMPT.shape[1] + new), np.int32)
  tokens[0, : len(prompt)] = prompt
  for n in range(len(prompt), len(prompt) + new):
    tokens[0, n] = np.argmax(call(tokens, np.array([n]))[0, n - 1])
  return tokens[0, len(prompt) : len(prompt) + new].tolist()


def test_greedy_tokens_are_those_of_the_parallel_form_at_ragged_lengths(model, variables):
  tokens, _ = generate(model, variables, PROMPT, lengths=LENGTHS, max_new=NEW)
  assert tokens.shape == (2, NEW)
  want = [by_hand(model, variables, row[:n], NEW) for row, n in zip(PROMPT, LENGTHS)]
  assert np.asarray(tokens).tolist() == want
  assert len({*want[0], *want[1]}) > 2, "the model says nothing worth comparing"


def test_going_on_from_the_state_equals_one_call(model, variables, drawn):
  kwargs = dict(sampler=SAMPLER, rng=RNG)
  state = model.init_state(2, PROMPT.shape[1] + NEW)
  first, state = generate(model, variables, PROMPT, lengths=LENGTHS, max_new=2, state=state, **kwargs)
  second, _ = generate(model, variables, first[:, -1:], max_new=NEW - 2, state=state, **kwargs)
  assert np.array_equal(drawn, np.concatenate([first, second], axis=1))


def stream(model, variables, seed: int) -> list[np.ndarray]:
  return list(streams.stream(model, variables, PROMPT[0], tokens=NEW, sampler=SAMPLER, seed=seed, chunk=4))


@pytest.mark.slow
def test_streaming_equals_one_call(model, variables, drawn):
  pieces = stream(model, variables, SEED)
  assert [len(piece) for piece in pieces] == [4, 2]
  assert np.concatenate(pieces).tolist() == drawn[0].tolist()


def test_seeds_differ(model, variables, drawn):
  assert np.concatenate(stream(model, variables, SEED + 1)).tolist() != drawn[0].tolist()


def text_task(**kwargs) -> SimpleNamespace:
  encode = lambda text: np.frombuffer(text.encode(), np.uint8).astype(np.int32)
  task = SimpleNamespace(head="lm", encode=encode, decode=lambda tokens: bytes(np.asarray(tokens, np.uint8)))
  return SimpleNamespace(**{**vars(task), **kwargs})


def test_characters_cut_by_a_call_are_written_whole(model, variables, monkeypatch):
  raw = "naïve ☃ €".encode()
  monkeypatch.setattr(streams, "stream", lambda *_, **__: iter([np.array([byte]) for byte in raw]))
  out = io.StringIO()
  text = streams.write(model, variables, text_task(), prompt="so ", tokens=len(raw), out=out)
  assert text == "naïve ☃ €"
  assert out.getvalue() == "so naïve ☃ €\n"


def test_bytes_that_are_no_text_are_replaced(model, variables, monkeypatch):
  monkeypatch.setattr(streams, "stream", lambda *_, **__: iter([np.array([65, 255]), np.array([66, 0xE2])]))
  assert streams.write(model, variables, text_task(), prompt="", tokens=4, out=io.StringIO()) == "A\ufffdB\ufffd"


def test_control_characters_do_not_reach_the_terminal(model, variables, monkeypatch):
  monkeypatch.setattr(streams, "stream", lambda *_, **__: iter([np.frombuffer(b"a\x1b[31m\tb\r\n", np.uint8)]))
  out = io.StringIO()
  assert streams.write(model, variables, text_task(), prompt="", tokens=4, out=out) == "a\x1b[31m\tb\r\n"
  assert out.getvalue() == "a\ufffd[31m\tb\r\n\n"


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(tokens=PROMPT[:, :0]), "the prompt has no tokens"),
    (dict(max_new=0), "max_new=0"),
    (dict(lengths=np.array([0, 3])), r"lengths are \[0 3\]; each must be from 1 to 5"),
    (dict(lengths=np.array([5, 6])), r"each must be from 1 to 5"),
    (dict(max_new=4092), r"5 tokens of prompt and 4092 new ones are 4097, .* max_len=4096; ask for at most 4091"),
    (dict(sampler=make_sampler()._replace(temperature=-1.0)), r"temperature=-1\.0"),
  ],
)
def test_what_cannot_be_generated_is_an_error(model, variables, kwargs, message):
  kwargs = dict(tokens=PROMPT, max_new=NEW) | kwargs
  with pytest.raises(ValueError, match=message):
    generate(model, variables, kwargs.pop("tokens"), **kwargs)


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(prompt=""), "the prompt has no tokens"),
    (dict(tokens=0), "tokens=0"),
    (dict(tokens=5000), "max_len=4096"),
    (dict(top_p=0.0), r"top_p=0\.0"),
    (dict(task=text_task(head="classifier")), "has no text"),
  ],
)
def test_what_cannot_be_written_is_an_error_before_anything_is_printed(model, variables, kwargs, message):
  kwargs, out = dict(prompt="a", tokens=4, task=text_task()) | kwargs, io.StringIO()
  with pytest.raises(ValueError, match=message):
    streams.write(model, variables, kwargs.pop("task"), out=out, **kwargs)
  assert out.getvalue() == ""


def test_learned_positions_bound_the_length_and_a_fixed_state_does_not():
  fixed = language_model(pattern="m", max_len=16)
  tokens, _ = generate(fixed, variables_of(fixed), PROMPT, max_new=20)
  assert tokens.shape == (2, 20)
  learned = language_model(pattern="m", max_len=16, embed={"position": "learned"})
  with pytest.raises(ValueError, match="max_len=16; ask for at most 11 new tokens"):
    generate(learned, {}, PROMPT, max_new=20)


def test_state_outgrown_or_parameters_broken_are_errors(model, variables):
  with pytest.raises(ValueError, match="row 0 has NaN logits at its new token 2"):
    generate(model, variables, PROMPT, lengths=LENGTHS, max_new=NEW, state=model.init_state(2, 6))
  broken = jax.tree.map(lambda x: x * jnp.nan, variables)
  with pytest.raises(ValueError, match="row 0 has NaN logits at its new token 0"):
    generate(model, broken, PROMPT, lengths=LENGTHS, max_new=NEW)
