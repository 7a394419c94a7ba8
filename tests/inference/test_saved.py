"""A context that was saved and restored goes on as if nothing had been, and another model's is refused."""

import jax
import numpy as np
import pytest

from inference import generate, make_sampler
from inference.context import start
from inference.saved import restore, save
from tests.inference.models import language_model, made

PROMPTS = [[3, 1, 4, 1, 5], [2, 7, 1], [9]]
SETTINGS = dict(max_new_tokens=6, sampler=make_sampler(repetition_penalty=1.2), rng=jax.random.key(1))


@pytest.fixture(scope="module")
def first():
  return generate(*made("hybrid"), PROMPTS, room=32, **SETTINGS)


def test_a_restored_context_goes_on_identically(first, tmp_path):
  path = tmp_path / "context"
  save(path, *made("hybrid"), first.context)
  assert [file.name for file in tmp_path.iterdir()] == ["context"]
  again = restore(path, *made("hybrid"))
  assert jax.tree.map(np.array_equal, again, first.context) == jax.tree.map(lambda _: True, again)
  go_on = lambda context: generate(*made("hybrid"), None, context=context, **SETTINGS)
  want, found = go_on(first.context), go_on(again)
  assert found.rows() == want.rows()
  assert np.array_equal(found.logprobs, want.logprobs)


def test_layers_may_be_stacked_or_apart(first, tmp_path):
  model, variables = made("hybrid")
  save(tmp_path / "context", model, variables, first.context)
  restore(tmp_path / "context", model, model.apart(variables))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_caches_in_fewer_bits_are_restored(tmp_path, dtype):
  letters = {"a": {"name": "softmax", "cache_dtype": dtype}}
  model = language_model(body={"name": "stack", "depth": 1, "pattern": "a", "letters": letters})
  context = start(model, 2, 16)
  context = context._replace(state=jax.tree.map(lambda leaf: (leaf + 1).astype(leaf.dtype), context.state))
  save(tmp_path / "context", model, {}, context)
  again = restore(tmp_path / "context", model, {})
  assert jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), again, context) == jax.tree.map(
    lambda _: True, again
  )


def test_what_does_not_fit_is_one_line(first, tmp_path):
  model, variables = made("hybrid")
  path = tmp_path / "context"
  save(path, model, variables, first.context)
  cases = [
    (path, *made("hybrid", seed=4), "is of the same architecture with other parameters"),
    (path, *made("mamba"), r"is of another model: its body has 'depth': 3, .* this one's has 'depth': 2, .* …; open"),
    (tmp_path / "nothing", model, variables, "does not exist"),
    (tmp_path, model, variables, "is no file"),
  ]
  (tmp_path / "text").write_text("text")
  cases.append((tmp_path / "text", model, variables, "cannot be read: it is damaged or no saved context"))
  with open(tmp_path / "array", "wb") as file:
    np.save(file, np.zeros(3))
  with open(tmp_path / "pickle", "wb") as file:
    np.savez(file, meta=np.array([{}], object))
  with open(tmp_path / "foreign", "wb") as file:
    np.savez(file, meta=np.frombuffer(b'{"format": "ssm-jax context 1"}', np.uint8))
  cases += [(tmp_path / name, model, variables, "cannot be read") for name in ("array", "pickle", "foreign")]
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 255
  (tmp_path / "flipped").write_bytes(raw)
  cases.append((tmp_path / "flipped", model, variables, "damaged"))
  for file, model, variables, message in cases:
    with pytest.raises(ValueError, match=message) as error:
      restore(file, model, variables)
    assert "\n" not in str(error.value)
    assert "allow_pickle" not in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 280
