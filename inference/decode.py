"""Reading prompts in pieces and drawing tokens, each in one compiled program that updates the state in place."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from inference.context import RECENT, Context, held, rounded
from inference.sampling import Sampler, adjusted, sample
from mistake import Mistake


class Drawn(NamedTuple):
  """The tokens that one call has drawn."""

  tokens: Int[Array, "b m"]  # 0 past the lengths; -1 where the logits were not numbers
  lengths: Int[Array, "b"]  # how many each row has, a stop sequence included
  logprobs: Float[Array, "b m"]  # log-probability of each, by the model alone: no temperature, penalty or bias
  stopped: Bool[Array, "b"]  # whether the row ends in a stop sequence


def make_stops(stop: Sequence[Sequence[int]], vocab: int) -> Int[np.ndarray, "n w"] | None:
  """Returns the stop sequences as an array, -1 before the shorter ones; None where there are none.

  Raises:
    ValueError: one is empty or too long, or has a token outside the vocabulary.
  """
  for tokens in stop:
    if not 1 <= len(tokens) <= RECENT:
      raise Mistake(f"generate: a stop sequence has {len(tokens)} tokens; it must have 1 to {RECENT}")
    if not all(0 <= token < vocab for token in tokens):
      raise Mistake(f"generate: stop sequence {list(tokens)} has a token outside the model's 0 … {vocab - 1}")
  if not stop:
    return None
  width = max(len(tokens) for tokens in stop)
  return np.array([[-1] * (width - len(tokens)) + list(tokens) for tokens in stop], np.int32)


@partial(jax.jit, static_argnums=(0,))
def unstacked(model: nn.Module, variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables as `draw` wants them: slices of stacked layers would be copied for every token."""
  return model.apart(variables)


def read(
  model: nn.Module,
  variables: Mapping[str, Any],
  context: Context,
  tokens: Int[np.ndarray, "b t"],
  lengths: Int[np.ndarray, "b"],
  *,
  chunk: int,
) -> Context:
  """Returns the context after right-padded rows of tokens, `chunk` of them at a time; the context given is used up.

  The last token of each row is kept and not read, as in every context. A row without tokens stays as it was.
  """
  context = _note(context, jnp.asarray(tokens), jnp.asarray(lengths))
  unread = np.maximum(lengths - 1, 0)
  longest = int(unread.max())
  for done in range(0, longest, chunk):
    # a table of positions takes no more tokens at once than it has rows, padding or not
    width = min(chunk, rounded(longest - done), model.positions or chunk)
    piece = np.zeros((len(tokens), width), np.int32)
    part = tokens[:, done : done + width]
    piece[:, : part.shape[1]] = part
    left = np.clip(unread - done, 0, width).astype(np.int32)
    # masks have a price
    state = _prefill(model, variables, piece, context.state, None if (left == width).all() else left)
    context = context._replace(state=state)
  return context


@partial(jax.jit, static_argnums=(0,), donate_argnames=("state",))
def _prefill(
  model: nn.Module, variables: Mapping[str, Any], tokens: Int[Array, "b t"], state: Any, lengths: Int[Array, "b"] | None
) -> Any:
  return model.apply(variables, tokens, state, lengths=lengths, method="prefill")[1]


@partial(jax.jit, donate_argnums=(0,))
def _note(context: Context, tokens: Int[Array, "b t"], lengths: Int[Array, "b"]) -> Context:
  """Returns the context with the tokens seen and the last ones kept; the state is left as it is."""
  row = jnp.arange(len(tokens))
  valid = jnp.arange(tokens.shape[1]) < lengths[:, None]
  vocab = context.seen.shape[1]
  seen = context.seen.at[row[:, None], jnp.where(valid, tokens, vocab)].set(True, mode="drop")
  some = lengths > 0
  last = jnp.where(some, tokens[row, jnp.maximum(lengths - 1, 0)], context.last)
  recent = jnp.where(some[:, None], -1, context.recent)
  return context._replace(last=last, seen=seen, recent=recent)


@partial(jax.jit, static_argnums=(0,), static_argnames=("size", "sampler", "alike"), donate_argnames=("context",))
def draw(
  model: nn.Module,
  variables: Mapping[str, Any],
  context: Context,
  keys: Key[Array, "b"],
  limits: Int[Array, "b"],
  bias: Float[Array, "v"] | None,
  stops: Int[Array, "n w"] | None,
  *,
  size: int,
  sampler: Sampler,
  alike: bool,
) -> tuple[Drawn, Context]:
  """Draws up to `limits` tokens a row, and returns them and the context after them; the one given is used up.

  `limits` is traced: texts of any length are made by one compiled program.

  Args:
    variables: made by `unstacked`.
    limits: at most `size`; a row with 0 stays as it is.
    size: columns of the arrays returned.
    alike: promises that all limits are equal, so that without stop sequences no row ends before the others.
  """
  b = len(keys)
  row, hold = jnp.arange(b), b > 1 and not (alike and stops is None)
  zeros = lambda dtype: jnp.zeros((b, size), dtype)
  none = Drawn(zeros(jnp.int32), jnp.zeros(b, jnp.int32), zeros(jnp.float32), jnp.zeros(b, bool))

  def more(carry: tuple) -> Bool[Array, ""]:
    return ~carry[1].all()

  def body(carry: tuple) -> tuple:
    i, done, context, drawn = carry
    state: Any
    logits, state = model.apply(variables, context.last, context.state, method="step")
    state = held(done, context.state, state) if hold else state
    token = sample(keys, adjusted(logits, context.seen, bias, sampler), state.position, sampler)
    active, last = ~done, jnp.where(done | (token < 0), context.last, token)
    logprob = jax.nn.log_softmax(logits, axis=-1)[row, last]
    recent = jnp.concatenate([context.recent[:, 1:], last[:, None]], axis=1)
    recent = jnp.where(done[:, None], context.recent, recent)
    lengths = drawn.lengths + active
    stopped = drawn.stopped | (active & ends(recent, stops))
    drawn = Drawn(
      drawn.tokens.at[:, i].set(jnp.where(active, token, 0)),
      lengths,
      drawn.logprobs.at[:, i].set(jnp.where(active, logprob, 0)),
      stopped,
    )
    context = context._replace(state=state, last=last, seen=context.seen.at[row, last].set(True), recent=recent)
    return i + 1, done | stopped | (token < 0) | (lengths >= limits), context, drawn

  _, _, context, drawn = jax.lax.while_loop(more, body, (0, limits <= 0, context, none))
  return drawn, context


def ends(recent: Int[Array, "*b r"], stops: Int[Array, "n w"] | None) -> Bool[Array, "*b"]:
  """Returns whether the tokens drawn last are a stop sequence."""
  if stops is None:
    return jnp.zeros(recent.shape[:-1], bool)
  same = (stops < 0) | (recent[..., None, -stops.shape[1] :] == stops)
  return same.all(axis=-1).any(axis=-1)
