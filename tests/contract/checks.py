"""The contract of a mixer as checks: each takes a `Case` and raises AssertionError where the mixer breaks it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.interpreters import partial_eval

from tests.contract.case import FULL, HALF, LENGTHS, MAX_LEN, STARTS, B, Case, T, jit, live, resets, split_floats

RESUMABLE = ("fixed", "window", "grows", "whole input")
STATES = (*RESUMABLE, "none")
CACHES = ("grows", "whole input")
LONG, CUT = 4096, 1023  # tokens of the long check, and where its prefill is cut
CHECKS: dict[str, tuple[Callable[[Case], None], tuple[str, ...]]] = {}


def check(*states: str) -> Callable:
  """Registers a check for mixers of these kinds of state."""

  def register(fn: Callable[[Case], None]) -> Callable[[Case], None]:
    CHECKS[fn.__name__] = (fn, states)
    return fn

  return register


def assert_close(actual: Any, desired: Any, tolerance: float, what: str) -> None:
  """Largest difference at most `tolerance` times the largest desired entry, or times 1 where that is larger."""
  actual, desired = np.asarray(actual), np.asarray(desired)
  assert actual.shape == desired.shape, f"{what}: shape {actual.shape}, wanted {desired.shape}"
  if desired.size:
    assert np.isfinite(desired).all(), f"{what}: what to compare with is not finite"
    error = np.max(np.abs(actual - desired)) / max(1.0, np.max(np.abs(desired)))
    assert error <= tolerance, f"{what}: relative error {error:.2g}, over {tolerance:.2g}"


def assert_same_tree(actual: Any, desired: Any, tolerance: float, what: str) -> None:
  assert jax.tree.structure(actual) == jax.tree.structure(desired), f"{what}: another tree"
  for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(desired)):
    assert_close(one, other, tolerance, f"{what}{jax.tree_util.keystr(path)}")


def described(tree: Any) -> Any:
  return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)


@check(*STATES)
def declares_itself(case):
  module = case.module
  assert case.state in STATES, f"STATE is {case.state!r}, one of {STATES}"
  params = case.initial.get("params", {})
  assert isinstance(getattr(module, "SIDE", ()), tuple), "SIDE is a tuple of names"
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} <= {"float32"}, "parameters are float32"


@check(*STATES)
def counts_its_parameters(case):
  count = sum(leaf.size for leaf in jax.tree.leaves(case.initial.get("params", {})))
  assert count == case.count, f"{count} parameters; its equations have {case.count}"


@check(*STATES)
def can_be_made_abstractly_and_in_bulk(case):
  tokens, keys = case.tokens.cut(0, HALF), jax.random.split(jax.random.key(0), 3)
  many = jax.eval_shape(jax.vmap(case.init), keys)
  y = jax.eval_shape(jax.vmap(case.apply, in_axes=(0, None), axis_size=len(keys)), many, tokens)
  assert y.shape == (3, B, HALF, case.width), f"with three sets of parameters y has shape {y.shape}"


@check(*RESUMABLE)
def parallel_is_prefill_then_steps(case):
  """Row i prefills LENGTHS[i] tokens, none and all among them, and steps through the rest."""
  y, state = case.prefill(case.tokens, case.init_state(), lengths=LENGTHS)
  stepped, _ = case.steps(case.tokens.then(case.tokens, LENGTHS), state)
  for row, k in enumerate(LENGTHS):
    together = np.concatenate([y[row, :k], stepped[row, : T - k]])
    assert_close(together, case.y[row], case.tolerance, f"prefill of {k} tokens, then steps")


@check(*RESUMABLE)
def prefill_composes(case):
  """From an empty and from a worn state: in two pieces (the first of one token) as in one."""
  for what, state in (("from an empty state", case.init_state()), ("from a worn state", case.worn)):
    y, after = case.prefill(case.tokens, state)
    y_pieces, after_pieces = case.pieces(case.tokens, state)
    assert_close(y_pieces, y, case.tolerance, f"outputs {what}")
    assert_same_tree(after_pieces, after, case.tolerance, f"state {what}")
    if what == "from an empty state":
      assert_close(y, case.y, case.tolerance, "prefill and __call__")


@check(*STATES)
def causal(case):
  """The Jacobian, a row of the batch for each token asked about: nothing from the future, something from the past."""
  weights = np.zeros((B, T, case.width), case.dtype)
  weights[np.arange(T), np.arange(T)] = case.noise(4, T, case.width)
  jacobian = np.abs(case.gradients(case.tokens, weights, FULL)[1]).max(axis=-1)
  assert not jacobian[T].any(), "a row that was not asked about has a gradient: rows mix"
  past, future = (np.pad(triangle, ((0, 1), (0, 0))) for triangle in (np.tri(T, k=-1) > 0, np.tri(T) == 0))
  leak, largest = jacobian[future].max(), jacobian.max()
  noise = 1e-6 if case.dtype == jnp.float32 else 1e-13
  if case.state == "none":
    assert leak > 0, "sees no future; what is causal has a state"
  else:
    allowed = 0 if case.exact else noise * largest
    assert leak <= allowed, f"gradient {leak:.2g} from the future, over {allowed:.2g}"
  remembers = jacobian[past].max() > noise * largest
  assert remembers or case.memoryless, "no gradient from the past"
  assert not (remembers and case.memoryless), "its state is empty, yet it remembers"


@check(*STATES)
def call_separates_documents(case):
  expected = np.zeros_like(case.y)
  for start in range(T):
    rows = [row for row in range(B) if start == 0 or start in STARTS[row]]
    ends = np.array([min((s for s in starts if s > start), default=T) for starts in STARTS])
    alone = case.alone(case.tokens, start, ends) if rows else None
    for row in rows:
      expected[row, start : ends[row]] = alone[row, : ends[row] - start]
  assert_close(case.call(case.tokens, resets()), expected, case.tolerance, "packed and alone")


@check(*RESUMABLE)
def prefill_separates_documents(case):
  """From a worn state, which only a row's first document may see; then on, which only its last may be seen from."""
  y, state = case.prefill(case.tokens, case.worn, resets())
  continued, _ = case.prefill(case.tokens, case.worn)
  last = np.array([max(starts, default=0) for starts in STARTS])
  expected = np.where((np.cumsum(resets(), axis=1) == 0)[..., None], continued, case.call(case.tokens, resets()))
  assert_close(y, expected, case.tolerance, "packed, from a worn state")
  onward = case.call(case.tokens.then(case.more, last))
  for what, (y, _) in (("steps", case.steps(case.more, state)), ("prefill", case.prefill(case.more, state))):
    for row in np.flatnonzero(last):
      assert_close(y[row, : last[row]], onward[row, T - last[row] :], case.tolerance, f"{what} after packing")


@check(*RESUMABLE)
def resets_past_lengths_do_nothing(case):
  """Every kind of packing with every kind of length, from a worn state: as if the rest were not there."""
  y, state = case.prefill(case.tokens.poisoned(LENGTHS), case.worn, resets(), LENGTHS)
  full, _ = case.prefill(case.tokens, case.worn, resets())
  assert_close(y, np.where(live(LENGTHS)[..., None], full, 0), case.tolerance, "outputs")
  _, without = case.prefill(case.tokens.poisoned(LENGTHS), case.worn, resets() & live(LENGTHS), LENGTHS)
  stepped, _ = case.steps(case.more, state)
  expected, _ = case.steps(case.more, without)
  inside = live(T - LENGTHS)[..., None]  # further on, a cache may be full
  assert_close(np.where(inside, stepped, 0), np.where(inside, expected, 0), case.tolerance, "steps")


@check(*STATES)
def call_ignores_what_lies_past_lengths(case):
  """Row i as it is without padding; a mixer without a state shows it at two lengths, and that all paddings are one."""
  inside = live(LENGTHS)[..., None]
  y = case.call(case.tokens.poisoned(LENGTHS), None, LENGTHS)
  assert np.isfinite(y).all(), "NaN past the lengths reaches outputs"
  assert not np.where(inside, 0, y).any(), "outputs past the lengths are not zero"
  expected = np.where(inside, case.y, 0)
  if case.state == "none":
    assert_close(y, case.call(case.tokens.until(LENGTHS, case.more), None, LENGTHS), case.tolerance, "two paddings")
    half = case.call(case.tokens.cut(0, HALF))
    for row in np.flatnonzero(LENGTHS == HALF):
      expected[row, :HALF] = half[row]
    # the rows of other lengths have no program of their own to compare with
    compared = (LENGTHS == HALF) | (LENGTHS == T)
    y, expected = y[compared], expected[compared]
  assert_close(y, expected, case.tolerance, "ragged and alone")


@check(*RESUMABLE)
def prefill_ignores_what_lies_past_lengths(case):
  """From a worn state; each row goes on from its own end, and one of length 0 from where it was."""
  y, state = case.prefill(case.tokens.poisoned(LENGTHS), case.worn, lengths=LENGTHS)
  expected, _ = case.steps(case.tokens, case.worn)
  assert_close(y, np.where(live(LENGTHS)[..., None], expected, 0), case.tolerance, "outputs")
  stepped, _ = case.steps(case.tokens.then(case.more, LENGTHS), state)
  for row, k in enumerate(LENGTHS):
    assert_close(stepped[row, : T - k], expected[row, k:], case.tolerance, f"steps after a prompt of {k} tokens")
  kept = [jax.tree.map(lambda leaf: np.asarray(leaf)[LENGTHS == 0], tree) for tree in (state, case.worn)]
  assert_same_tree(*kept, 1e-6, "state of a row of length 0")


@check(*CACHES)
def full_cache_turns_the_row_to_nan(case):
  """The worn state holds T tokens, its cache 2T: row i has room for T - LENGTHS[i] more."""
  _, state = case.prefill(case.tokens, case.worn, lengths=LENGTHS)
  stepped, _ = case.steps(case.more, state)
  asked = LENGTHS[::-1].copy()
  prefilled, _ = case.prefill(case.more, state, lengths=asked)
  for row, room in enumerate(T - LENGTHS):
    assert np.isfinite(stepped[row, :room]).all(), f"step: not finite although {room} tokens fit"
    assert np.isnan(stepped[row, room:]).all(), f"step: past the {room} tokens that fit, not NaN"
    assert np.isfinite(prefilled[row, : min(room, asked[row])]).all() or asked[row] > room, "prefill: not finite"
    assert np.isnan(prefilled[row, room : asked[row]]).all(), f"prefill: past the {room} tokens that fit, not NaN"


@check(*STATES)
def call_gradients_ignore_what_lies_past_lengths(case):
  assert_clean_gradients(case.gradients(case.tokens.poisoned(LENGTHS), case.noise(5, B, T, case.width), LENGTHS))


@check(*RESUMABLE)
def prefill_gradients_ignore_what_lies_past_lengths(case):
  """And what a reset at the first token or a length of 0 cuts off has no gradient, while every other state has one."""
  reset = resets() if case.packs else None
  gradients = case.gradients(case.tokens.poisoned(LENGTHS), case.noise(5, B, T, case.width), LENGTHS, case.worn, reset)
  assert_clean_gradients(gradients)
  cut_off = (LENGTHS == 0) | (case.packs & resets()[:, 0])
  for leaf, worn in zip(gradients[2], split_floats(case.worn)[0]):
    reached = np.abs(leaf).reshape(B, -1).max(axis=1, initial=0) > 0  # one tap carries nothing
    assert not reached[cut_off].any(), "a gradient reaches a state that no output can see"
    # latent attention without turned entries keeps a key of 0, which only says that a token is no number
    assert reached[~cut_off].any() or not np.any(worn), "no gradient reaches the incoming state"


def assert_clean_gradients(gradients: Any) -> None:
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.isfinite(leaf).all(), f"gradient {jax.tree_util.keystr(path)} is not finite"
  assert not np.where(live(LENGTHS)[..., None], 0, gradients[1]).any(), "a gradient past the lengths is not zero"


@check(*RESUMABLE)
def gradients_of_prefill_are_those_of_call(case):
  weights, reset = case.noise(5, B, T, case.width), case.no_resets()
  call = case.gradients(case.tokens, weights, FULL)
  prefill = case.gradients(case.tokens, weights, FULL, case.init_state(), reset)
  assert_same_tree(prefill[:2], call[:2], 10 * case.tolerance, "gradient ")


@check(*RESUMABLE)
def state_keeps_its_form(case):
  """Tree, shapes and dtypes; at least float32 throughout; the batch first in every leaf; the size that STATE says."""
  for leaf in jax.tree.leaves(case.module.init_state(B, MAX_LEN)):
    assert not jnp.issubdtype(leaf.dtype, jnp.inexact) or leaf.dtype in (jnp.float32, jnp.complex64), leaf.dtype
  sizes = {
    (b, t): [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(lambda b=b, t=t: case.module.init_state(b, t)))]
    for b, t in ((2, 1024), (3, 1024), (2, 2048))
  }
  assert all(shape[0] == 2 for shape in sizes[2, 1024]), "a leaf's first axis is not the batch"
  assert [shape[1:] for shape in sizes[2, 1024]] == [shape[1:] for shape in sizes[3, 1024]], (
    "the batch is elsewhere too"
  )
  grows = sizes[2, 2048] != sizes[2, 1024]
  assert grows == (case.state in CACHES), f"STATE is {case.state!r}, and with max_len the state {grows=}"
  state = case.init_state()
  after = {"prefill": case.prefill(case.tokens, state)[1], "step": case.steps(case.tokens, state)[1]}
  for what, other in after.items():
    assert described(other) == described(state), f"{what}: state {described(other)}, from {described(state)}"


@check(*STATES)
def bfloat16_keeps_a_float32_state(case):
  """bfloat16 in, bfloat16 out, a state as from float32, and values near those of float32."""
  tokens = case.tokens._replace(x=jnp.asarray(case.tokens.x, jnp.bfloat16))

  @jit
  def run(v, tokens, state):
    outputs, states = {}, []
    if case.own_call:
      outputs["__call__"] = case.apply(v, tokens)
    if case.state != "none":
      outputs["prefill"], state = case.apply(v, tokens.cut(0, HALF), state, method="prefill")
      token = jax.tree.map(lambda value: value[:, HALF], tokens)
      y, state_next = case.apply(v, token, state, method="step")
      outputs["step"], states = y[:, None], [state, state_next]
    return outputs, states

  state = None if case.state == "none" else case.init_state()
  outputs, states = run(case.variables, tokens, state)
  expected = {"__call__": case.y, "prefill": case.y[:, :HALF], "step": case.y[:, HALF : HALF + 1]}
  for what, y in outputs.items():
    desired = expected[what]
    assert y.dtype == jnp.bfloat16, f"{what}: {y.dtype} for bfloat16"
    error = np.sqrt(np.mean((np.asarray(y, np.float32) - desired) ** 2) / np.mean(desired**2))
    assert error < 0.03, f"{what}: relative error {error:.2g} against float32"
  for other in states:
    assert described(other) == described(state), f"state {described(other)}, from {described(state)}"


@check(*STATES)
def ignores_side_inputs_it_does_not_declare(case):
  """The traced program of no method reads one; a stack, which knows all its mixers, may refuse it instead."""
  tokens, variables = jax.tree.map(jnp.asarray, case.tokens.cut(0, 3)), case.variables
  methods = {"__call__": (tokens, ())} if case.own_call else {}
  if case.state != "none":
    one = jax.tree.map(lambda value: value[:, 0], tokens)
    methods |= {"prefill": (tokens, (case.init_state(),)), "step": (one, (case.init_state(),))}
  for method, (given, args) in methods.items():

    def run(other, method=method, given=given, args=args):
      side = {**(given.side or {}), "undeclared": other}
      return case.apply(variables, given._replace(side=side), *args, method=method)

    try:
      jaxpr = jax.make_jaxpr(run)(given.x).jaxpr
    except ValueError as error:
      if "undeclared" not in str(error):
        raise
      continue
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    assert not any(used), f"{method} reads a side input that SIDE does not name"


@check(*STATES)
def refuses_wrong_shapes(case):
  """Under the import hook of conftest.py: a missing axis, and resets that are not booleans. And no tokens at all."""
  x, lengths, reset, variables = case.tokens.x, LENGTHS, np.zeros((B, T), bool), case.variables
  run = lambda *args: case.module.apply(variables, args[0], reset=args[1], lengths=args[2])
  for args in ((x[:, 0], reset, lengths), (x, reset.astype(np.int32), lengths), (x, reset, lengths[:, None])):
    with pytest.raises(jaxtyping.TypeCheckError):
      jax.eval_shape(run, *args)
  with pytest.raises(ValueError, match="no tokens"):
    jax.eval_shape(run, x[:, :0], reset[:, :0], None)


@check(*STATES)
def finite_over_a_long_sequence(case):
  """LONG tokens, in two pieces where it can resume: values as in one, finite gradients also in the incoming state."""
  tokens = case.make_tokens(6, 1, LONG)
  state = None if case.state == "none" else case.init_state(1, LONG)

  @jax.jit
  def run(v, tokens, state, weights):
    floats, rebuild = split_floats(state)

    def loss(params, x, floats):
      given = tokens._replace(x=x)
      if state is None:
        y = case.apply({**v, "params": params}, given)
      else:
        y, after = case.apply({**v, "params": params}, given.cut(0, CUT), rebuild(floats), method="prefill")
        rest, _ = case.apply({**v, "params": params}, given.cut(CUT, LONG), after, method="prefill")
        y = jnp.concatenate([y, rest], axis=1)
      return jnp.sum(y * weights), y

    grad, y = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(v.get("params", {}), tokens.x, floats)
    return grad, y, case.apply(v, tokens)

  gradients, y, whole = run(case.variables, tokens, state, case.noise(7, 1, LONG, case.width))
  assert_close(y, whole, 10 * case.tolerance, "in two pieces and in one")
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.isfinite(leaf).all(), f"gradient {jax.tree_util.keystr(path)} is not finite"


IN_FLOAT64 = (
  "parallel_is_prefill_then_steps",
  "prefill_composes",
  "causal",
  "call_separates_documents",
  "prefill_separates_documents",
  "resets_past_lengths_do_nothing",
  "call_ignores_what_lies_past_lengths",
  "prefill_ignores_what_lies_past_lengths",
  "gradients_of_prefill_are_those_of_call",
)
