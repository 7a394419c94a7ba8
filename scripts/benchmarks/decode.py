"""Greedy decoding of a Mamba language model, batch 1, from contexts of growing length, beside `transformers`."""

import functools

import jax

from inference.generate import generate
from scripts.benchmarks.case import Case, Timed
from scripts.benchmarks.models import SIZES, language_model
from scripts.peers.own_process import own_process

TOKENS = 128


def cases() -> list[Case]:
  """Three lengths of context, beside the peer."""
  rows = []
  for context in (128, 1024, 4096):
    group = f"Mamba decode, batch 1, context {context}, width 256, 4 layers, {TOKENS} tokens"
    peer = functools.partial(own_process, "scripts.peers.hugging_face:decode", **SIZES, context=context, tokens=TOKENS)
    rows += [
      Case(group, "ours", functools.partial(decode, context)),
      Case(group, "transformers, use_mambapy", peer),
    ]
  return rows


def decode(context: int) -> Timed:
  """`TOKENS` greedy steps from the state after `context` tokens; the prefill is not timed."""
  model = language_model(**SIZES)
  prompt = jax.random.randint(jax.random.key(0), (1, context), 0, SIZES["vocab"])
  params = jax.jit(model.init)(jax.random.key(1), prompt[:, :1])
  first = generate(model, params, prompt, max_new_tokens=1, room=context + TOKENS + 1).context

  def call():
    # the sampler's default is greedy; the compiled loop is reused from the second call on
    return jax.block_until_ready(generate(model, params, None, max_new_tokens=TOKENS, context=first).tokens)

  return Timed(call, per_call=TOKENS, unit="tokens")
