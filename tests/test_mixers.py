"""Every mixer obeys the contract; its own file in tests/mixers/ says with which small sizes.

The checks are in tests/contract/checks.py. In the default suite a mixer's first row has them, those in COSTLY unless it
is made of other mixers, and those in RARE for one mixer of each kernel; a later row has those outside of COSTLY if it
has another kind of state than the first. The slow suite has all others, and every comparison in float64 again.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from layers.mixer import Mixer
from tests import initial, mixers, sources
from tests.contract.case import Case, D
from tests.contract.checks import CHECKS, IN_FLOAT64
from training import optimizer

SMALL, SIDE = mixers.table("SMALL"), mixers.table("SIDE")
# Checks that compile programs of their own: a mixer's first row has them in the default suite, others in the slow one.
COSTLY = (
  "bfloat16_keeps_a_float32_state",
  "call_ignores_what_lies_past_lengths",
  "call_gradients_ignore_what_lies_past_lengths",
  "causal",
  "gradients_of_prefill_are_those_of_call",
  "ignores_side_inputs_it_does_not_declare",
  "prefill_gradients_ignore_what_lies_past_lengths",
)
# Checks of one mixer of each kernel: another check shows that prefill goes on from a worn state as steps do.
RARE = ("can_be_made_abstractly_and_in_bulk", "prefill_composes")
# Mixers made of others that have these in the default suite.
COMPOSED = ("titans_mac", "titans_mag", "titans_mal")
RECURRENCES = frozenset(
  {"delta_rule", "gated_linear_attention", "linear_scan", "lti", "rg_lru", "selective_scan", "ssd"}
)
ALL = frozenset(path.name for path in (sources.ROOT / "kernels").iterdir() if path.is_dir())
# Rows for the newer Python.
SMOKE = ("mamba", "softmax")


@functools.cache
def build(row: str) -> Any:
  return mixer_lib.build(mixers.path(row.split(",")[0]), width=D, **SMALL[row])


def primitives(row: str) -> frozenset[str]:
  """The kernels that a row's mixer and the mixers within it call."""
  return sources.primitives_of({"name": row.split(",")[0], "fields": SMALL[row]})


def make_case(row: str, dtype: Any) -> Case:
  exact = not primitives(row) & {"lti", "long_conv"}
  total = mixers.count(row.split(",")[0], D, **SMALL[row])
  return Case(build(row), exact=exact, side=SIDE.get(row), dtype=dtype, count=total)


# One at a time, as its compiled programs are large; the tests of a row follow each other on one worker.
case = functools.lru_cache(maxsize=1)(make_case)


def state_of(row: str) -> str:
  """STATE; 'fixed' for what cannot be built, so that its tests are there to fail."""
  try:
    return build(row).STATE
  except Exception:
    return "fixed"


def first_rows(rows: Iterable[str], kernels: frozenset[str]) -> set[str]:
  """The first of the rows for each of these kernels, which stands for the other mixers that call it."""
  first: dict[str, str] = {}
  for row in rows:
    # what is made of other mixers costs more and shows no more
    if "," in row or row in COMPOSED or "mixer" in SMALL[row] or row not in sources.mixer_files():
      continue
    for primitive in primitives(row) & kernels:
      first.setdefault(primitive, row)
  return set(first.values())


def parameters(checks: Mapping[str, Any]) -> list:
  long, of_each, found = first_rows(SMALL, RECURRENCES), first_rows(SMALL, ALL), []
  for row in SMALL:
    first = row.split(",")[0]
    alike = row != first and state_of(row) == state_of(first)
    for name, (_, states) in checks.items():
      slow = alike or (name in COSTLY and (row != first or row in COMPOSED))
      slow |= name in RARE and row not in of_each or name == "finite_over_a_long_sequence" and row not in long
      marks = [pytest.mark.xdist_group(row), *[pytest.mark.slow] * slow, *[pytest.mark.smoke] * (row in SMOKE)]
      if state_of(row) in states:
        found.append(pytest.param(row, name, id=f"{row}-{name}", marks=marks))
  return found


@pytest.mark.parametrize("name", sorted({*sources.mixer_files(), *mixers.files()}))
def test_every_mixer_has_a_test_file(name):
  """With all its tables; and of these files, each is a mixer's."""
  file = mixers.files().get(name)
  assert file, f"write tests/mixers/{name}.py; tests/mixers/__init__.py says what stands there"
  missing = [table for table in ("SMALL", "count", "ORACLE", "REFUSED") if not hasattr(file, table)]
  assert not missing, f"tests/mixers/{name}.py has no {missing}; tests/mixers/__init__.py says what they are"
  assert "" in file.SMALL, f"tests/mixers/{name}.py: the first row of SMALL is called ''"
  is_mixer = hasattr(file, "PATH") or name in set(sources.mixer_files()) & set(mixer_lib.available())
  assert is_mixer, f"tests/mixers/{name}.py is of no mixer"


@pytest.mark.parametrize("name", mixers.files())
def test_a_mixer_overrides_no_private_name_of_its_base_class(name):
  """What the base class keeps to itself can change; a subclass has the public methods for all it may say."""
  own = [name for name, value in vars(Mixer).items() if getattr(value, "__module__", "") == Mixer.__module__]
  private = {name for name in own if name.startswith("_") and not name.startswith("__")}
  assert private, "the base class has no private names, or they are looked for in the wrong way"
  bases = mixer_lib.find(mixers.path(name)).__mro__
  found = {cls.__qualname__: sorted(set(vars(cls)) & private) for cls in bases[: bases.index(Mixer)]}
  assert not any(found.values()), f"{name} overrides private names of layers.mixer.Mixer: {found}"


@pytest.mark.parametrize("name", sorted(sources.mixer_files()))
def test_every_mixer_builds_with_its_width_alone(name):
  """At a width that no published default was made for; a wrapper also needs what it wraps."""
  inner = {"mixer": dict(name="mlp"), "branches": (dict(name="mlp"),)}
  fields = mixer_lib.fields(mixer_lib.find(name))
  needed = {field: value for field, value in inner.items() if fields.get(field)}
  mixer = mixer_lib.build(name, width=48, **needed)
  shape = jax.eval_shape(mixer.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 48), jnp.float32))
  assert jax.tree.leaves(shape) or name == "fnet", "no parameters"


@pytest.mark.parametrize("name, fields, reason", mixers.cases("REFUSED"))
def test_what_does_not_fit_is_refused_when_the_mixer_is_built(name, fields, reason):
  def made(x):
    return mixer_lib.build(mixers.path(name), **{"width": D, **fields}).init(jax.random.key(0), x)

  with pytest.raises(ValueError, match=re.escape(reason)):
    jax.eval_shape(made, jnp.zeros((1, 2, D)))


@pytest.mark.parametrize("name, fields, expected", mixers.cases("INITIAL"))
def test_initial_values(name, fields, expected):
  collections = initial.variables(mixer_lib.build(mixers.path(name), **{"width": D, **fields}))
  values = flax.traverse_util.flatten_dict({**collections.pop("buffers", {}), **collections["params"]}, sep="/")
  for paths, check in expected.items():
    for path in paths.split():
      value = np.asarray(values[path] if path in values else values[f"{path}/kernel"])
      check(value) if callable(check) else np.testing.assert_array_equal(value, check)


@pytest.mark.parametrize("name, fields, shapes", mixers.cases("STATES"))
def test_states_have_their_published_sizes(name, fields, shapes):
  state = jax.eval_shape(lambda: mixer_lib.build(mixers.path(name), **fields).init_state(1, 100))
  leaves = jax.tree_util.tree_leaves_with_path(state)
  sizes = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
  assert {leaf: sizes.get(leaf) for leaf in shapes} == shapes


@pytest.mark.parametrize("row", [row for row in SMALL if state_of(row) == "none"])
def test_who_asks_for_a_state_that_cannot_be_is_told_which_field_forbids_it(row):
  with pytest.raises(ValueError, match="no state") as error:
    build(row).init_state(1, 4)
  by_choice = state_of(row.split(",")[0]) != "none"
  assert any(f"{field}={value!r}" in str(error.value) for field, value in SMALL[row].items()) or not by_choice


@pytest.mark.parametrize("row", [row for row in SMALL if "max_len" in mixer_lib.fields(type(build(row)))])
def test_more_tokens_than_max_len_are_refused_and_not_cut_off(row):
  """By those whose parameters or state have that length."""
  module = build(row).clone(max_len=16)
  if module.STATE in ("none", "whole input"):
    with pytest.raises(ValueError, match="17 tokens, but it was built for max_len=16"):
      jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 17, D)))
  if module.STATE == "whole input":
    with pytest.raises(ValueError, match=f"{type(module).__name__}: 17 tokens"):
      module.init_state(1, 17)


@pytest.mark.parametrize("name", [name for name, file in mixers.files().items() if hasattr(file, "TRAINED")])
def test_slow_parameters_and_biases_in_matrices_do_not_decay(name):
  """A small learning rate without weight decay, and no weight decay for biases, scales and mixtures in matrices."""
  file, trained = mixers.files()[name], {"slow": set(), "undecayed": set()}
  for fields in file.SMALL.values():
    module = mixer_lib.build(mixers.path(name), width=D, **fields)
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, D)))["params"]
    matrices = {path for path, box in flax.traverse_util.flatten_dict(params, sep="/").items() if box.value.ndim > 1}
    rules = optimizer.assign(params, weight_decay=1.0, slow_lr=0.5, groups=())
    slow = {path for path, rule in rules.items() if rule.lr == 0.5}
    assert not any(rules[path].weight_decay for path in slow)
    trained["slow"] |= slow
    trained["undecayed"] |= {path for path in matrices - slow if not rules[path].weight_decay}
  assert trained == {"slow": set(), "undecayed": set(), **file.TRAINED}


@pytest.mark.parametrize("row, check", parameters(CHECKS))
def test_mixer(row, check):
  CHECKS[check][0](case(row, jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("row, check", parameters({name: CHECKS[name] for name in IN_FLOAT64}))
def test_mixer_in_float64(row, check):
  with jax.enable_x64(True):
    CHECKS[check][0](case(row, jnp.float64))
