"""Requests in a pool are what they would be alone, whenever they join and leave."""

import jax
import numpy as np
import pytest

from inference import generate, make_sampler
from inference.pool import Pool
from tests.inference.models import PATTERNS, VOCAB, made

SAMPLER = make_sampler(repetition_penalty=1.2)
KEYS = jax.random.split(jax.random.key(2), 6)
# prompt, tokens wanted, the step before which it joins
REQUESTS = [([3, 1, 4], 9, 0), ([2, 7], 2, 0), ([5], 7, 0), ([1] * 12, 4, 1), ([9, 9], 1, 2), ([8, 6, 5, 3], 11, 3)]


def alone(kind: str, number: int, **settings):
  prompt, count, _ = REQUESTS[number]
  key = KEYS[number : number + 1]
  return generate(*made(kind), [prompt], max_new_tokens=count, sampler=SAMPLER, rng=key, room=64, **settings)


def pooled(kind: str, **settings) -> dict:
  pool, done = Pool(*made(kind), rows=2, room=64, sampler=SAMPLER, chunk=3, **settings), {}
  for step in range(20):
    for (prompt, count, when), key in zip(REQUESTS, KEYS):
      if when == step:
        pool.add(prompt, max_new_tokens=count, rng=key)
    done |= pool.step()
  assert not len(pool)
  return done


@pytest.mark.parametrize(
  "kind", [kind if kind == "hybrid" else pytest.param(kind, marks=pytest.mark.slow) for kind in PATTERNS]
)
def test_each_request_equals_itself_alone(kind):
  done = pooled(kind)
  assert sorted(done) == list(range(6))
  for number in range(6):
    want = alone(kind, number)
    assert done[number].tokens == want.rows()[0]
    np.testing.assert_allclose(done[number].logprobs, want.logprobs[0], atol=1e-4)


@pytest.mark.slow
def test_a_stop_sequence_frees_the_row():
  kind = "hybrid"
  stop = [alone(kind, 0).rows()[0][2:4]]
  done = pooled(kind, stop=stop)
  for number in range(6):
    want = alone(kind, number, stop=stop)
    assert (done[number].tokens, done[number].stopped) == (want.rows()[0], bool(want.stopped[0]))
  assert done[0].stopped
  assert len(done[0].tokens) < 9


def test_requests_can_be_dropped_and_report_as_they_go():
  pool, pieces = Pool(*made("hybrid"), rows=2, room=64, sampler=SAMPLER, chunk=3), []
  numbers = [pool.add([3, 1, 4], max_new_tokens=9, rng=KEYS[0], callback=pieces.append) for _ in range(3)]
  pool.step()
  pool.cancel(numbers[1])
  pool.cancel(numbers[2])
  assert len(pool) == 1
  done = pool.run()
  assert list(done) == numbers[:1]
  assert (
    sum((piece for piece in pieces[:1] + pieces[2:]), []) == done[numbers[0]].tokens == alone("hybrid", 0).rows()[0]
  )


def test_a_callback_that_raises_loses_no_tokens():
  pool, pieces = Pool(*made("hybrid"), rows=2, room=64, sampler=SAMPLER, chunk=20), []

  def fails(new):
    raise KeyError("of the caller")

  add = lambda number, callback: pool.add(REQUESTS[number][0], max_new_tokens=9, rng=KEYS[number], callback=callback)
  numbers = [add(0, fails), add(1, pieces.append)]
  with pytest.raises(KeyError, match="of the caller"):
    pool.run()
  assert len(pool) == 2
  done = pool.run()
  assert not len(pool)
  want = generate(*made("hybrid"), [REQUESTS[n][0] for n in (0, 1)], max_new_tokens=9, sampler=SAMPLER, rng=KEYS[:2])
  assert [done[number].tokens for number in numbers] == want.rows()
  assert pieces == want.rows()[1:]


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(prompt=[]), "the prompt has no tokens"),
    (dict(prompt=[VOCAB]), "has token 11"),
    (dict(prompt=[1] * 60, max_new_tokens=5), "60 tokens of prompt and 5 new ones are 65, but the pool has room=64"),
    (dict(max_new_tokens=0), "max_new_tokens=0"),
  ],
)
def test_what_does_not_fit_is_refused_and_the_pool_goes_on(kwargs, message):
  pool = Pool(*made("hybrid"), rows=2, room=64)
  with pytest.raises(ValueError, match=message):
    pool.add(**dict(prompt=[1], max_new_tokens=1) | kwargs)
  assert not len(pool)


@pytest.mark.parametrize("kwargs, message", [(dict(rows=0), "rows=0"), (dict(room=9999), "max_len=4096")])
def test_a_pool_that_cannot_be_is_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    Pool(*made("hybrid"), **kwargs)
