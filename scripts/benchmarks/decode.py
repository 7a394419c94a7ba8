"""Reading prompts and greedy decoding, of two state space models, a hybrid and a Transformer, beside `transformers`.

The models are those of `small.py`. Decoding is timed from contexts of growing length. Their content is made up, since
times do not depend on it; a hybrid's or a Transformer's caches are full of it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention.cache import Cache
from hybrids.model import Model
from inference.context import Context, start
from inference.decode import draw, read, unstacked
from inference.sampling import make_sampler, row_keys
from scripts.benchmarks import small
from scripts.benchmarks.case import Case, Timed
from scripts.peers.own_process import own_process

KINDS = ("Mamba", "Mamba-2", "Jamba", "Llama")
CONTEXTS, BATCHES, PROMPTS = (128, 1024, 4096, 32_768), (1, 16), (512, 4096)
# with more tokens of context than this altogether, a call draws few
MANY = 2**17


def cases() -> list[Case]:
  """Decoding at four lengths of context and two sizes of batch, and two lengths of prompt; each beside its peer."""
  rows = []
  for kind in KINDS:
    for batch in BATCHES:
      for context in CONTEXTS:
        tokens = 8 if batch * context > MANY else 64
        shape = dict(kind=kind, batch=batch, context=context, tokens=tokens)
        group = f"{kind} decode, batch {batch}, context {context}, width {small.WIDTH}, 4 layers, {tokens} tokens a row"
        rows += pair(group, decode, "decode", shape)
    for length in PROMPTS:
      group = f"{kind} prompt of {length} tokens, batch 1, width {small.WIDTH}, 4 layers"
      rows += pair(group, prefill, "prefill", dict(kind=kind, length=length))
  return rows


def pair(group: str, ours: Any, theirs: str, shape: dict[str, Any]) -> list[Case]:
  """Returns our case and the peer's."""
  peer = functools.partial(own_process, f"scripts.peers.hugging_face:{theirs}", **shape)
  return [Case(group, "ours", functools.partial(ours, **shape)), Case(group, "transformers", peer)]


def decode(*, kind: str, **shape: int) -> Timed:
  """Decodes by a model of `small.py`."""
  return decode_of(small.build(small.MODELS[kind]), **shape)


def decode_of(model: Model, *, batch: int, context: int, tokens: int) -> Timed:
  """`tokens` greedy steps a row after `context` tokens. The loop updates the caches in place, and starts there anew."""
  variables, keys = unstacked(model, small.fresh(model)), row_keys(None, batch)
  limits, sampler = np.full(batch, tokens, np.int32), make_sampler(temperature=0.0)
  kept = [start(model, batch, context + tokens)]

  def call():
    begun = filled(kept.pop(), context)
    drawn, after = draw(model, variables, begun, keys, limits, None, None, size=tokens, sampler=sampler, alike=True)
    kept.append(after)
    return jax.block_until_ready(drawn.tokens)

  return Timed(call, per_call=tokens * batch, unit="tokens")


@functools.partial(jax.jit, static_argnums=(1,), donate_argnums=(0,))
def filled(context: Context, tokens: int) -> Context:
  """Returns the context with states that have read `tokens` tokens, whose content is whatever is there."""

  def fill(node: Any) -> Any:
    if not isinstance(node, Cache):
      return node
    slot = jnp.broadcast_to(jnp.arange(node.segment.shape[1], dtype=jnp.int32), node.segment.shape)
    here = slot < tokens
    consumed = jnp.full_like(node.consumed, tokens)
    return node._replace(segment=jnp.where(here, 0, -1), position=jnp.where(here, slot, -1), consumed=consumed)

  state = jax.tree.map(fill, context.state, is_leaf=lambda node: isinstance(node, Cache))
  return context._replace(state=state._replace(position=jnp.full_like(state.position, tokens)))


def prefill(*, kind: str, length: int) -> Timed:
  """Reads a prompt at once into a new state."""
  model = small.build(small.MODELS[kind])
  variables = small.fresh(model)
  tokens = np.random.default_rng(0).integers(0, small.VOCAB, (1, length + 1)).astype(np.int32)
  lengths = np.array([length + 1], np.int32)

  def call():
    begun = start(model, 1, length + 1)
    return jax.block_until_ready(read(model, variables, begun, tokens, lengths, chunk=length))

  return Timed(call, per_call=length, unit="tokens")
