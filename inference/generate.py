"""Continuing token sequences: the prompt in one parallel call, then one token a time, all inside one jit."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from inference.sampling import Sampler, make_sampler, sample
from mistake import Mistake

AnyArray = Array | np.ndarray
# one compiled program serves up to so many values of `max_new`
ROUND = 32


def generate(
  model: nn.Module,
  variables: Mapping[str, Any],
  tokens: Int[AnyArray, "b t"],
  *,
  lengths: Int[AnyArray, "b"] | None = None,
  max_new: int,
  sampler: Sampler | None = None,
  state: Any = None,
  rng: Key[Array, ""] | None = None,
) -> tuple[Int[Array, "b m"], Any]:
  """The `max_new` tokens that follow each row, and the state before the last of them.

  That last token has been drawn but not read, so the text goes on with
  `generate(model, variables, new[:, -1:], state=state, …)`, and is the same as if drawn in one call.

  Args:
    tokens: the prompts, padded at the end; with `state`, what follows the tokens it has already seen.
    lengths: tokens of each prompt; all of them by default.
    sampler: greedy by default.
    state: None starts new sequences, with room for the prompt and `max_new` tokens where the state grows.
    rng: needed above temperature 0; key 0 by default.
  Raises:
    ValueError: an empty prompt, a length outside the prompt, `max_new` below 1, more tokens than the model's
      `max_len` or the given state allow, or parameters that are not finite.
  """
  sampler = make_sampler(*(sampler or Sampler(temperature=0.0)))
  b, t = tokens.shape
  if t == 0 or b == 0:
    raise Mistake(f"generate: the prompt has no tokens (shape {tokens.shape}); give at least one to start from")
  if max_new < 1:
    raise Mistake(f"generate: max_new={max_new}; give at least 1")
  if lengths is not None and not (np.min(lengths) >= 1 and np.max(lengths) <= t):
    raise Mistake(f"generate: lengths are {np.asarray(lengths)}; each must be from 1 to {t}, the prompts' width")
  seen = 0 if state is None else int(np.max(state.position))
  check_room(model, seen + (t if lengths is None else int(np.max(lengths))), max_new)
  if state is None:
    state = start(model, b, t + max_new)
  lengths = jnp.full(b, t, jnp.int32) if lengths is None else jnp.asarray(lengths, jnp.int32)
  rng = jax.random.key(0) if rng is None else rng
  tokens = jnp.asarray(tokens, jnp.int32)
  size = -(-max_new // ROUND) * ROUND
  new, state = run(model, variables, tokens, lengths, state, rng, max_new, size=size, sampler=sampler)
  check_numbers(new)
  return new[:, :max_new], state


def check_numbers(new: Int[Array, "b m"]) -> None:
  """Raises ValueError where `run` met logits that are not numbers."""
  rows, places = np.nonzero(np.asarray(new) < 0)
  if rows.size:
    raise Mistake(
      f"generate: row {rows[0]} has NaN logits at its new token {places[0]}; its parameters are not finite, or it has "
      "outgrown the state it was given: start without `state`, or with one made for more tokens"
    )


def check_room(model: nn.Module, prompt: int, new: int) -> None:
  """Raises ValueError where `prompt` and `new` tokens exceed what the model can hold."""
  limit = model.longest
  if limit is not None and prompt + new > limit:
    raise Mistake(
      f"generate: {prompt} tokens of prompt and {new} new ones are {prompt + new}, but the model has max_len={limit}; "
      f"ask for at most {max(limit - prompt, 0)} new tokens or shorten the prompt"
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def start(model: nn.Module, batch: int, length: int) -> Any:
  """The state of `batch` sequences that will have up to `length` tokens."""
  limit = model.longest
  return model.init_state(batch, min(length, limit or length))


@partial(jax.jit, static_argnums=(0,), static_argnames=("size", "sampler"))
def run(
  model: nn.Module,
  variables: Mapping[str, Any],
  tokens: Int[Array, "b t"],
  lengths: Int[Array, "b"],
  state: Any,
  rng: Key[Array, ""],
  count: int | Int[Array, ""],
  *,
  size: int,
  sampler: Sampler,
) -> tuple[Int[Array, "b m"], Any]:
  """The loop of `generate`: draws `count` tokens into a row of `size`, of which the rest are zero.

  `count` is traced: texts of any length are made by one compiled program.
  """
  last, state = model.apply(variables, tokens, state, lengths=lengths, method="prefill")
  new = jnp.zeros((tokens.shape[0], size), jnp.int32)
  # slices of stacked layers would be copied for every token
  variables = model.apart(variables)

  def draw(i: Any, logits: Float[Array, "b v"], state: Any, new: Int[Array, "b m"]) -> Int[Array, "b m"]:
    return new.at[:, i].set(sample(rng, logits, state.position, sampler))

  def body(i, carry):
    state, new = carry
    logits, state = model.apply(variables, new[:, i - 1], state, method="step")
    return state, draw(i, logits, state, new)

  state, new = jax.lax.fori_loop(1, count, body, (state, draw(0, last, state, new)))
  return new, state
