"""Every mixer computes what its paper says: as an independent NumPy transcription does, in float64, to 1e-9."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from tests import mixers, sources
from tests.contract.case import LENGTHS, Case, D, resets
from tests.oracles.parts import by_document

CASES, SIDE, SLOW = mixers.oracles(), mixers.table("SIDE"), mixers.rows("SLOW")
PACKED = dict(reset=resets(), lengths=LENGTHS)


# Compositions of other mixers, and maps of one token, each compared with its equation in its own file.
WITHOUT = {"bidirectional", "image_scan", "mlp", "gated_mlp", "parallel", "reverse_complement", "with_embedding"}


def test_every_mixer_has_an_oracle():
  compared = {name.split(",")[0] for name in CASES}
  missing = set(sources.mixer_files()) - compared - WITHOUT
  assert not missing, f"write tests/oracles/NAME.py and compare it in tests/mixers/NAME.py for {sorted(missing)}"


@functools.lru_cache(maxsize=1)
def case_and_oracle(name):
  """A mixer at perturbed parameters in float64, and its oracle, which takes x and the packing."""
  kwargs, oracle, told = CASES[name]
  case = Case(build(**kwargs, width=D), side=SIDE.get(name), dtype=jnp.float64)
  # what a mixer keeps besides its parameters has a name of its own
  kept = {name: value for collection in case.variables.values() for name, value in collection.items()}
  flat = flax.traverse_util.flatten_dict(kept, sep="/")
  p = {path: np.asarray(value) for path, value in flat.items()}
  assert {value.dtype for value in p.values()} <= {np.dtype("float64")}
  return case, functools.partial(by_document, oracle, p, side=case.tokens.side, **told)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_equals_the_papers_equations(name):
  """Rows of every packing and length, the plain one among them."""
  with jax.enable_x64(True):
    case, oracle = case_and_oracle(name)
    assert_equal(case.call(case.tokens.poisoned(LENGTHS), **PACKED), oracle(case.tokens.x, **PACKED))


@pytest.mark.parametrize("name", sorted(mixers.rows("RESUMED")))
def test_other_ways_equal_the_papers_equations(name):
  """Where __call__ is more than a prefill: the resumable form, and the plain one without documents."""
  with jax.enable_x64(True):
    case, oracle = case_and_oracle(name)
    assert_equal(case.prefill(case.tokens, case.init_state(), **PACKED)[0], oracle(case.tokens.x, **PACKED))
    assert_equal(case.call(case.tokens), oracle(case.tokens.x))


def assert_equal(actual, expected):
  assert actual.dtype == np.float64
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
