"""Every recipe's body at toy size obeys the contract of mixers: its layers do so apart, and here together.

The checks are those of tests/contract/checks.py, but for the number of parameters, which test_recipes.py holds, and
long sequences, which are each mixer's own. All but those about precision run in float64: norms of one or two entries,
as toys have them, make much of a rounding error. The default suite has one check of a few bodies unlike each other.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from hybrids import recipes
from tests import sources
from tests.contract.case import Case
from tests.contract.checks import CHECKS
from tests.hybrids.filled import filled
from tests.refused import refused

# windows of a U-net reach across documents, so that it refuses them
UNPACKED = ("sashimi_toy",)
OF_DOCUMENTS = ("call_separates_documents", "prefill_separates_documents", "resets_past_lengths_do_nothing")
NOT_HERE = ("counts_its_parameters", "finite_over_a_long_sequence")
IN_FLOAT32 = ("declares_itself", "state_keeps_its_form", "bfloat16_keeps_a_float32_state")
# experts beside recurrences and a cache; several streams; a value that the first layer offers
EVERYDAY = ("jamba_toy", "glm5_toy", "rwkv7_toy")
# of a padded prompt and what follows it, from a state that has seen other tokens
QUICK = "prefill_ignores_what_lies_past_lengths"


class Filled(Case):
  """A case whose parameters are drawn without compiling what initialises them."""

  @functools.cached_property
  def initial(self):
    return filled(self.module, self.noise(0, 2, 3, self.width))


class Initial(Case):
  """A case in float64 with the initial values of one in float32, as both compile the same initialiser."""

  @functools.cached_property
  def initial(self):
    with jax.enable_x64(False):
      return Case(self.module).initial


def drawn(*size):
  return lambda b, t: np.random.default_rng(0).standard_normal((b, t, *size))


@functools.cache
def section(name):
  """The body's section; of a body that changes the number of tokens that of its first stage, which does not."""
  body = roomy(recipes.get_recipe(name).model["body"])
  return {"name": "stack", **body["stages"][0]} if body["name"] == "stages" else body


def roomy(value):
  """The section with room for the tokens of the contract, where a mixer has a `max_len`."""
  if not isinstance(value, Mapping):
    return value
  return {key: 2048 if key == "max_len" else roomy(inner) for key, inner in value.items()}


@functools.cache
def build(name):
  width = recipes.get_recipe(name).model["width"]
  return mixer_lib.build_spec(mixer_lib.frozen(section(name)), width=width, layer=0, depth=1)


def side_of(name):
  """What the body reads beside each token, as the model's embedding gives it; layers make offers themselves."""
  module = build(name)
  makers = {"dt": lambda b, t: np.abs(drawn()(b, t)) + 0.5, "embedding": drawn(module.width)}
  if "ngrams" in module.SIDE:
    embed = recipes.get_recipe(name).model["embed"]
    makers["ngrams"] = drawn(embed["size"] * embed["sets"])
  return {side: make for side, make in makers.items() if side in module.SIDE} or None


@functools.lru_cache(maxsize=2)
def case(name, dtype, kind=Initial):
  exact = not sources.primitives_of(section(name)) & {"lti", "long_conv"}
  return kind(build(name), exact=exact, side=side_of(name), dtype=dtype, packs=name not in UNPACKED)


def parameters():
  for name in recipes.names(toys=True):
    for check, (_, states) in CHECKS.items():
      skipped = check in NOT_HERE or (name in UNPACKED and check in OF_DOCUMENTS)
      if build(name).STATE in states and not skipped:
        marks = [pytest.mark.xdist_group(f"body {name}"), pytest.mark.slow]
        yield pytest.param(name, check, id=f"{name}-{check}", marks=marks)


@pytest.mark.parametrize("name, check", parameters())
def test_body(name, check):
  wide = check not in IN_FLOAT32
  with jax.enable_x64(wide):
    CHECKS[check][0](case(name, jnp.float64 if wide else jnp.float32))


@pytest.mark.parametrize("name", EVERYDAY)
def test_a_body_goes_on_from_the_end_of_each_padded_prompt(name):
  with jax.enable_x64(True):
    CHECKS[QUICK][0](case(name, jnp.float64, Filled))


@pytest.mark.parametrize("name", ["attended_stack", "hyper_stack"])
@pytest.mark.parametrize("field, value", [("depth", "2"), ("pattern", 3), ("dpeth", 2)])
def test_a_stack_inside_is_checked_before_it_is_made(name, field, value):
  stack = dict(depth=2, pattern="m", letters={"m": {"name": "min_gru"}}) | {field: value}
  refused(f"Stack: stack.*{field}", mixer_lib.build, name, width=8, stack=stack)
  refused(f"stages.0..*{field}", mixer_lib.build, "event_stages", width=8, stages=(stack,))


@pytest.mark.parametrize("name", UNPACKED)
def test_documents_that_cannot_be_packed_are_refused(name):
  module = build(name)
  x, reset = jnp.zeros((2, 3, module.width)), jnp.ones((2, 3), bool)
  variables = filled(module, x)
  state = module.init_state(2, 3)
  for method, args in (("__call__", ()), ("prefill", (state,))):
    run = functools.partial(module.apply, variables, method=method, reset=reset)
    refused("documents cannot be packed", jax.eval_shape, run, x, *args)
