"""`ssd` on TPUs: chunks as matrix products, the states in VMEM. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some heads of one group of one row, and finds their states where the one
before left them: in the block of the last states, which stays in VMEM. The products of q and k are made once for all of
its heads. The algorithm, and what is kept for the gradient, are those of `xla.py`.
"""

import jax.numpy as jnp
from jax.experimental import pallas as pl

from kernels import decays, dispatch, kept_states, tpu
from kernels.ssd import tpu_blocks
from kernels.ssd.tpu_blocks import Blocks, Decays

TOKENS = tpu.LANES  # of a chunk, at most
HEADS = 4  # of a program, at most, if their channels fill lanes


def why_not(q, k, v, log_a, S, reset) -> str | None:
  return tpu.why_not(log_a, S)


def ssd(q, k, v, log_a, S, reset):
  """Computes `reference.ssd`."""
  log_a = decays.clear(log_a[..., None], reset)[..., 0]
  axes = ("b t g k", "b t g k", "b t h p", "b t h", "b h k p")
  return dispatch.shard(_ssd, axes, ("b t h p", "b h k p"))(q, k, v, log_a, S)


def _run(q, k, v, log_a, S, *, save):
  """Returns all y, the last states, and if `save` the states before each chunk."""
  blocks = Blocks(k, v, most=(TOKENS, HEADS), back=False)
  states = blocks.heads_of_group, blocks.k, blocks.p
  saved = (blocks.like(blocks.chunks, *states), blocks.by_chunk)
  y, last, *entries = tpu.in_order(
    _forward_kernel,
    blocks,
    "ssd",
    [*_arrays(blocks, q, k, v, log_a), (blocks.fold_states(S), blocks.by_row)],
    [
      (blocks.like(blocks.t, blocks.heads_of_group * blocks.p), blocks.by_token_and_head),
      *((blocks.like(*states), blocks.by_row), *[saved] * save),
    ],
  )
  return blocks.unfold(y, v), last.reshape(S.shape), *entries


def _arrays(blocks, q, k, v, log_a):
  """Returns pairs of arrays and their blocks."""
  # In two parts, see `decays.running_sums`: a strong decay takes no digits from those after it.
  sums = jnp.concatenate(decays.running_sums(blocks.fold_decays(log_a), axis=4), axis=3)
  tokens = blocks.by_token, blocks.by_token, blocks.by_token_and_head
  return *zip(map(blocks.fold, (q, k, v)), tokens), (sums, blocks.decay(2 * blocks.heads))


def _forward_kernel(blocks, q, k, v, sums, S, y, last, *entries):
  @pl.when(pl.program_id(2) == 0)
  def _():
    last[...] = S[...]

  for entry in entries:
    entry[...] = last[...]
  q, k, v = blocks.read((q, k, v))
  scores = tpu.product(q, k, 1, 1)
  for i in range(blocks.heads):
    decay, v_i, entry = _decays_of(sums, i), _head(v, i, blocks), last[i]
    y[:, _part(i, blocks)] = tpu.product(decay.inside * scores, v_i) + decay.enter * tpu.product(q, entry)
    last[i] = decay.across * entry + tpu.product(k, decay.leave * v_i, 0, 0)


def _backward(q, k, v, log_a, entries, y_bar, last_bar):
  blocks = Blocks(k, v, most=(TOKENS, HEADS), back=True)
  values = blocks.by_token_and_head
  keys_bar = blocks.like(blocks.grid[1], blocks.t, blocks.k), blocks.partial_by_token
  q_bar, k_bar, v_bar, log_a_bar, S_bar = tpu.in_order(
    _backward_kernel,
    blocks,
    "ssd_backward",
    [
      *(*_arrays(blocks, q, k, v, log_a), (entries, blocks.by_chunk)),
      *((blocks.fold(y_bar), values), (blocks.fold_states(last_bar), blocks.by_row)),
    ],
    [
      *(keys_bar, keys_bar, (blocks.like(blocks.t, blocks.heads_of_group * blocks.p), values)),
      (blocks.like(*blocks.grid[1:], blocks.heads, blocks.tokens), blocks.decay(blocks.heads)),
      (blocks.like(blocks.heads_of_group, blocks.k, blocks.p), blocks.by_row),
    ],
  )
  q_bar, k_bar = (blocks.unfold(z.sum(1), k) for z in (q_bar, k_bar))
  return q_bar, k_bar, blocks.unfold(v_bar, v), blocks.unfold_decays(log_a_bar), S_bar.reshape(last_bar.shape)


def _backward_kernel(blocks, q, k, v, sums, entry, y_bar, last_bar, q_bar, k_bar, v_bar, log_a_bar, S_bar):
  @pl.when(pl.program_id(2) == 0)
  def _():
    S_bar[...] = last_bar[...]

  q, k, v, y_bar = blocks.read((q, k, v, y_bar))
  scores = tpu.product(q, k, 1, 1)
  scores_bar, q_sum, k_sum = jnp.zeros_like(scores), jnp.zeros_like(q), jnp.zeros_like(k)
  for i in range(blocks.heads):
    decay, v_i, y_i = _decays_of(sums, i), _head(v, i, blocks), _head(y_bar, i, blocks)
    S, after_bar = entry[i], S_bar[i]
    read_bar, stored = decay.enter * y_i, decay.leave * v_i
    read, stored_bar = tpu.product(q, S), tpu.product(k, after_bar)
    weights, weights_bar = decay.inside * scores, tpu.product(y_i, v_i, 1, 1)
    scores_bar += decay.inside * weights_bar
    q_sum += tpu.product(read_bar, S, 1, 1)
    k_sum += tpu.product(stored, after_bar, 1, 1)
    v_bar[:, _part(i, blocks)] = tpu.product(weights, y_i, 0, 0) + decay.leave * stored_bar
    log_a_bar[i : i + 1] = tpu_blocks.log_decay_bar(
      Decays(
        inside=weights * weights_bar,
        enter=(read * read_bar).sum(1, keepdims=True),
        leave=(stored * stored_bar).sum(1, keepdims=True),
        across=decay.across * (S * after_bar).sum(0, keepdims=True).sum(1, keepdims=True),
      )
    )
    S_bar[i] = decay.across * after_bar + tpu.product(q, read_bar, 0, 0)
  q_bar[...] = q_sum + tpu.product(scores_bar, k)
  k_bar[...] = k_sum + tpu.product(scores_bar, q, 0, 0)


_ssd = kept_states.differentiable(_run, _backward, state=4)


def _part(i, blocks):
  return slice(i * blocks.p, (i + 1) * blocks.p)


def _head(z, i, blocks):
  return z[:, _part(i, blocks)]


def _decays_of(sums, i) -> Decays:
  """Returns head i's decays from running sums of log decays: rounded sums of all heads, then their rounding errors."""
  heads = sums.shape[0] // 2
  return tpu_blocks.decays_of(sums[i : i + 1], sums[heads + i : heads + i + 1])
