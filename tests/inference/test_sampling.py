"""Samplers: which tokens they leave, how often they draw each, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.sampling import Sampler, adjusted, as_keys, filtered, make_bias, make_sampler, row_keys, sample
from tests.refused import refused

PROBABILITY = np.array([0.05, 0.4, 0.1, 0.25, 0.2], np.float32)
LOGITS = jnp.log(PROBABILITY)[None]


def kept(logits: jax.Array, **settings) -> list[int]:
  return np.flatnonzero(np.isfinite(filtered(logits, make_sampler(**settings)))).tolist()


def draws(sampler: Sampler, n: int = 4000) -> np.ndarray:
  logits = jnp.broadcast_to(LOGITS, (n, 5))
  keys = row_keys(jax.random.key(0), n)
  return np.asarray(jax.jit(sample, static_argnums=3)(keys, logits, jnp.zeros(n, jnp.int32), sampler))


def test_temperature_zero_takes_the_largest():
  assert set(draws(make_sampler(temperature=0))) == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_sharpens_and_flattens(temperature):
  want = PROBABILITY ** (1 / temperature)
  got = np.bincount(draws(make_sampler(temperature)), minlength=5) / 4000
  np.testing.assert_allclose(got, want / want.sum(), atol=0.03)


@pytest.mark.parametrize("k, want", [(1, {1}), (2, {1, 3}), (3, {1, 3, 4}), (5, {0, 1, 2, 3, 4}), (9, {0, 1, 2, 3, 4})])
def test_top_k_keeps_the_k_likeliest(k, want):
  assert set(kept(LOGITS, top_k=k)) == want
  assert set(draws(make_sampler(top_k=k))) == want


@pytest.mark.parametrize(
  "p, want", [(0.01, {1}), (0.39, {1}), (0.5, {1, 3}), (0.66, {1, 3, 4}), (1.0, {0, 1, 2, 3, 4})]
)
def test_top_p_keeps_the_smallest_set_that_holds_p(p, want):
  assert set(kept(LOGITS, top_p=p)) == want
  assert set(draws(make_sampler(top_p=p))) == want


@pytest.mark.parametrize("settings", [dict(temperature=1e-46), dict(top_p=1e-46), dict(temperature=1e-38, min_p=1e-46)])
def test_numbers_that_float32_has_not_leave_the_likeliest(settings):
  sampler = make_sampler(**settings)
  for logits in (LOGITS, LOGITS + 9):
    assert sample(row_keys(None, 1), logits, jnp.zeros(1, jnp.int32), sampler) == 1


def test_those_that_tie_with_the_last_are_kept():
  logits = jnp.array([0.0, 1.0, 0.0, -9.0])
  assert kept(logits, top_p=0.6) == kept(logits, top_k=2) == [0, 1, 2]


def test_top_p_works_on_what_top_k_left():
  # of the two likeliest, 0.4 and 0.25, the first alone holds 0.615
  assert kept(LOGITS, top_k=2, top_p=0.6) == [1]
  assert kept(LOGITS, top_p=0.6) == [1, 3]


@pytest.mark.parametrize("p, want", [(0.0, {0, 1, 2, 3, 4}), (0.3, {1, 2 + 1, 4}), (0.6, {1, 3}), (1.0, {1})])
def test_min_p_keeps_what_is_at_least_a_fraction_as_likely_as_the_best(p, want):
  assert set(kept(LOGITS, min_p=p)) == want


def test_the_penalty_makes_tokens_of_the_context_rarer_whatever_their_sign():
  logits, seen = jnp.array([2.0, 2.0, -2.0, -2.0]), jnp.array([True, False, True, False])
  found = adjusted(logits, seen, None, make_sampler(repetition_penalty=1.25))
  np.testing.assert_allclose(found, [1.6, 2.0, -2.5, -2.0], rtol=1e-6)
  assert adjusted(logits, seen, jnp.asarray(make_bias({3: 5}, 4)), make_sampler()).tolist() == [2, 2, -2, 3]
  assert make_bias({}, 4) is None


def test_a_key_is_one_of_jax():
  key = jax.random.key(7)
  assert as_keys(key) is key
  assert as_keys(jax.random.PRNGKey(7)) == key
  assert (as_keys(jax.random.split(jax.random.PRNGKey(7), 3)) == jax.random.split(key, 3)).all()
  for seed in (7, np.int32(7), np.uint32(7)):
    refused(r"is no key; give jax.random.key\(0\)", as_keys, seed)


def test_draws_follow_from_key_and_position_only():
  logits, sampler = jnp.zeros((2, 1000)), make_sampler()
  draw = lambda seed, position: sample(row_keys(jax.random.key(seed), 2), logits, jnp.array(position), sampler)
  at = lambda seed, *position: np.asarray(draw(seed, position))
  assert (at(0, 5, 6) == at(0, 5, 6)).all()
  assert at(0, 5, 6)[0] == at(0, 5, 9)[0]
  assert (at(0, 5, 6) != at(0, 6, 7)).all()
  assert (at(0, 5, 5)[0] != at(0, 5, 5)[1]).all()
  assert (at(0, 5, 6) != at(1, 5, 6)).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_give_minus_one(temperature):
  logits = jnp.zeros((2, 5)).at[1, 3].set(jnp.nan)
  token = sample(row_keys(None, 2), logits, jnp.zeros(2, jnp.int32), make_sampler(temperature))
  assert token[0] >= 0
  assert token[1] == -1


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(temperature=-0.1), r"temperature=-0\.1; give a finite number of at least 0"),
    (dict(temperature=float("nan")), "temperature=nan"),
    (dict(temperature=float("inf")), "temperature=inf"),
    (dict(top_k=-1), "top_k=-1"),
    (dict(top_p=0.0), r"top_p=0\.0; give a number above 0 and at most 1"),
    (dict(top_p=1.1), r"top_p=1\.1"),
    (dict(min_p=-0.1), r"min_p=-0\.1; give a number from 0 to 1"),
    (dict(repetition_penalty=0.0), r"repetition_penalty=0\.0; give a finite number above 0"),
  ],
)
def test_settings_that_make_no_sense_are_errors(kwargs, message):
  with pytest.raises(ValueError, match=message):
    make_sampler(**kwargs)
