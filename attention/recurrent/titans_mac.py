"""Titans' memory as context (MAC): attention within a segment and to what its memory recalls. State: a window.

Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663. Theirs: p -> P, N_p -> persistent, C -> segment.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention.recurrent import titans
from attention.recurrent.with_memory import Gate, WithMemory
from kernels import inputs, segments
from kernels.scatter import written
from layers import Dense
from layers.initializers import uniform_fan_in
from layers.lengths import blank_past
from layers.mixer import Where
from layers.sizes import at_least_one


class State(NamedTuple):
  """The state of the memory, and the segment that attention sees."""

  memory: titans.State
  past: tuple[Float[Array, "b h ..."], ...]  # the memory's weights when the segment began
  kept: dict[str, Float[Array, "b s g k"]]  # keys and values of the segment: of what was recalled, then of tokens


class TitansMAC(WithMemory):
  """h = M_past(W_q S),  y = Attn([P | h | S]),  o = norm(y) sigmoid(norm(M(y)))     eqs. (21)-(25)

  for each segment S of the document, counted from its start: M_past is the memory of `titans` before S, and M is
  trained on y. Every token sees all persistent tokens P, and of h and S what belongs to it and to earlier tokens;
  rotations place P, h and S in a row, the last of P at -1.
  Segments follow one another, in parallel inside; packed documents (`reset`) take one token after the other.
  Departs: as o_t must not know later tokens, it is read from M after token t, where eq. (25) has the segment's end, and
  token t sees no later h. M is trained on the y of tokens alone, not on those of P and h. W_q x passes SiLU
  and is as long as the memory's own queries, but there is no convolution of it. sigmoid: see `Gate`.

  Attributes:
    heads: of the attention; the largest divisor of the width not above 8 that leaves pairs to turn, if not given.
    persistent: N_p; there may be none.
    position: of the attention, "rope" or "none".
    segment: tokens of a segment. The memory's chunks are its own.
    memory: fields of `Titans`.
  """

  segment: int = 128

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "segment")
    super().check()

  def setup(self):
    super().setup()
    self.q_proj = Dense(self.width, kernel_init=uniform_fan_in(), axes=("embed", "heads"))
    self.gate = Gate(self.norm_eps)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Returns the state of a document without tokens."""
    memory = self._titans(parent=None).init_state(batch, max_len)
    kept = self._attention(parent=None).init_state(batch, 2 * self.segment).kept
    kept = {name: z.swapaxes(1, 2) for name, z in kept.items()}
    return State(memory=memory, past=memory.weights, kept=kept)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    if self.is_initializing():
      # parameters cannot be made inside a loop
      self.piece(x[:, :1], state, jnp.ones(len(x), jnp.int32))
    module, variables = self.unbind()
    run = lambda x, state, lengths: module.apply(variables, x, state, lengths, method="piece")
    offset, initial = state.memory.length % self.segment, self.init_state(len(x), 1)
    return segments.each(run, x, state, size=self.segment, offset=offset, initial=initial, **where.masks)

  def mix_token(self, x, state: State, side):
    y, state = self.piece(x[:, None], state, jnp.ones(len(x), jnp.int32))
    return y[:, 0], state

  def piece(
    self, x: Float[Array, "b t d"], state: State, lengths: Int[Array, "b"]
  ) -> tuple[Float[Array, "b t d"], State]:
    """Takes tokens of one segment."""
    b, t, _ = x.shape
    slot = (state.memory.length % self.segment)[:, None] + jnp.arange(t)
    starts = (slot[:, 0] == 0) & (lengths > 0)
    past = tuple(inputs.where(starts, now, old) for now, old in zip(self.titans.weights(state.memory), state.past))
    h = self.titans.recall(past, self.q_proj(x))
    q, tokens = self.attention.project(x, self.segment + slot)
    _, recalled = self.attention.project(h, slot)
    kept = self._written(state.kept, (recalled, tokens), slot, lengths)
    # whatever an earlier segment left stands in later slots, which nobody sees
    position = jnp.broadcast_to(jnp.tile(jnp.arange(self.segment), 2), (b, 2 * self.segment))
    same = lambda z: jnp.zeros_like(z)
    where = dict(q_position=slot, k_position=position, q_segment=same(slot), k_segment=same(position))
    y = blank_past(self.attention.attend(x, q, **kept, **where), lengths)
    m, memory = self.titans.prefill(y, state.memory, lengths=lengths)
    return blank_past(self.gate(y, m), lengths), State(memory, past, kept)

  def _written(self, kept: dict[str, Any], new: tuple[dict[str, Any], ...], slot: Int[Array, "b t"], lengths):
    """Writes new keys and values: those of recalled vectors in the first half of the slots, of tokens in the second."""
    valid = inputs.valid(lengths, slot.shape[1])
    index = jnp.concatenate([jnp.where(valid, slot + i * self.segment, 2 * self.segment) for i in range(2)], axis=1)
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *new)
    return jax.tree.map(lambda old, z: written(old, z.astype(old.dtype), index), kept, both)
