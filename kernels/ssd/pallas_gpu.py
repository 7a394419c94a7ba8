"""`ssd` on GPUs: chunks of 64 tokens on Hopper's tensor cores. Never run on a GPU; its speed is unmeasured.

A block has 64 channels of one head of one row and goes through time in chunks that the copy engine brings ahead, with
its part of the state in registers, in float32. Where rows and heads make too few blocks, time is cut into segments,
whose maps S -> P S + E a first kernel finds. Factors of products are rounded to bfloat16, sums are in float32: of
what `xla.py` does not round, the decayed products of q and k, the decayed v, and the state where a token reads it.
"""

import functools

import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import decays, dispatch, gpu, kept_states
from kernels.ssd import gpu_tiling as to
from kernels.ssd.gpu_tiling import Block, Decays, Tiling, product

MOST = 128  # entries of a state in registers; with 256 they spill kilobytes
STAGES = 2  # chunks that are on their way, or being read; so two blocks share a multiprocessor


def why_not(q, k, v, log_a, S, reset) -> str | None:
  """Returns why this kernel cannot run these arguments: GPU, tensor cores and registers have limits."""
  if reason := gpu.why_not(log_a, S):
    return reason
  if (capability := gpu.compute_capability()) >= 10:
    return f"it multiplies as GPUs of compute capability 9 do; this one has {capability}"
  if dtypes := {z.dtype for z in (q, k)} - {jnp.dtype(jnp.bfloat16)}:
    return f"tensor cores multiply bfloat16, and q and k are {sorted(map(str, dtypes))}; these run as XLA compiles them"
  return f"a state has {k.shape[3]} entries, and registers hold {MOST} at most" if k.shape[3] > MOST else None


def ssd(q, k, v, log_a, S, reset):
  """Computes `reference.ssd`; v is rounded to bfloat16, and so is y."""
  log_a = decays.clear(log_a[..., None], reset)[..., 0]
  axes = ("b t g k", "b t g k", "b t h p", "b t h", "b h k p")
  return dispatch.shard(_ssd, axes, ("b t h p", "b h k p"))(q, k, v.astype(jnp.bfloat16), log_a, S)


def _inflows(tiling, tokens, values, sums, *, back):
  """Returns the inflow into the state from every segment but the scan's last: of k and v, or `back` q and y_bar."""
  if tiling.segments == 1:
    return None
  return gpu.kernel(
    functools.partial(_map_kernel, tiling, back),
    tiling.wide(tiling.segments - 1, tiling.h, tiling.k, tiling.p),
    (
      to.shared(STAGES, to.SIDE, tiling.k),
      to.shared(STAGES, to.SIDE, to.SIDE),
      tiling.sums(STAGES),
      gpu.barriers(3, STAGES),
    ),
    {**tiling.grid(), "s": tiling.segments - 1},
    "ssd_maps",
  )(tokens, values, sums)


def _map_kernel(tiling, back, tokens, values, sums, inflows, tokens_in, values_in, sums_in, ready):
  block = Block(tiling, back=back)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, ((tokens, tokens_in),), ((values, values_in),), (sums, sums_in))

  def tile(i, slot, out, S):
    decay, stored = Decays(sums_in.at[slot]), values_in.at[slot]
    scaled = (decay.enter() if back else decay.leave()) * to.load(stored)
    plgpu.commit_smem()
    stored[...] = to.narrow(scaled)
    plgpu.commit_smem()
    across = decay.across()
    return [across * z + _inflow(tokens_in.at[slot], n, stored) for n, z in enumerate(S)]

  start = [to.zeros() for _ in tiling.parts]
  block.write(inflows, gpu.stream(tiling.each, ready, fetch, tile, None, start, STAGES))


def _inflow(tokens, n, stored):
  """Returns the sum that the tokens of a chunk add to the n-th part of a state."""
  return product(to.turned(tokens.at[:, to.part(n)]), stored)


def _run(q, k, v, log_a, S, *, save):
  """Returns all y, the last states, and if `save` the states before each chunk, as the products read them."""
  tiling = Tiling(k, v)
  q, k, v = (tiling.tokens_of(z) for z in (q, k, v))
  sums = tiling.sums_of(log_a)
  S = tiling.entering(S, _inflows(tiling, k, v, sums, back=False), sums, back=False)
  y, last, *entries = gpu.kernel(
    functools.partial(_forward_kernel, tiling),
    (
      tiling.narrow(tiling.rows, tiling.h, tiling.p),
      tiling.by_segment(),
      *((tiling.narrow(tiling.h, tiling.chunks, tiling.k, tiling.p),) if save else ()),
    ),
    (
      *(to.shared(STAGES, to.SIDE, tiling.k), to.shared(STAGES, to.SIDE, tiling.k)),
      *(to.shared(STAGES, to.SIDE, to.SIDE), tiling.sums(STAGES), tiling.sums(STAGES)),
      *(to.shared(tiling.k, to.SIDE), to.shared(to.SIDE, to.SIDE), gpu.barriers(5, STAGES)),
    ),
    tiling.grid(),
    "ssd",
  )(q, k, v, sums, S)
  return tiling.tokens_from(y, tiling.channels), tiling.states_from(last[:, -1]), *entries


def _forward_kernel(tiling, q, k, v, sums, S, y, last, *entries_and_scratch):
  *entries, q_in, k_in, v_in, rows_in, columns_in, state, work, ready = entries_and_scratch
  block = Block(tiling, back=False)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, ((q, q_in), (k, k_in)), ((v, v_in),), (sums, rows_in, columns_in))

  def tile(i, slot, out, S):
    decay, k_t, v_t = Decays(rows_in.at[slot]), k_in.at[slot], v_in.at[slot]
    scores = product(q_in.at[slot], to.turned(k_t))
    # What left for y and the entries is read.
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
    for n, z in enumerate(S):
      state[to.part(n)] = to.narrow(z)
    work[...] = to.narrow(decay.inside(columns_in.at[slot]) * scores)
    plgpu.commit_smem()
    for ref in entries:
      plgpu.copy_smem_to_gmem(state, ref.at[block.by_chunk(i)])
    read = product(work, v_t) + decay.enter() * product(q_in.at[slot], state)
    stored = decay.leave() * to.load(v_t)
    # All threads have what they read before one writes in its place.
    plgpu.commit_smem()
    work[...], v_t[...] = to.narrow(read), to.narrow(stored)
    plgpu.commit_smem()
    across = decay.across()
    return [across * z + _inflow(k_t, n, v_t) for n, z in enumerate(S)]

  put = lambda i, out: plgpu.copy_smem_to_gmem(work, y.at[block.by_head(i)])
  block.write(last, gpu.stream(tiling.each, ready, fetch, tile, put, block.states(S), STAGES))


def _backward(q, k, v, log_a, entries, y_bar, last_bar):
  tiling = Tiling(k, v)
  q, k, v, y_bar = (tiling.tokens_of(z) for z in (q, k, v, y_bar))
  sums, square = tiling.sums_of(log_a), to.shared(to.SIDE, to.SIDE)
  last_bar = tiling.entering(last_bar, _inflows(tiling, q, y_bar, sums, back=True), sums, back=True)
  by_block = tiling.narrow(tiling.rows, tiling.h * tiling.blocks, tiling.k)
  q_bar, k_bar, v_bar, log_a_bar, S_bar = gpu.kernel(
    functools.partial(_backward_kernel, tiling),
    (
      *(by_block, by_block, tiling.narrow(tiling.rows, tiling.h, tiling.p)),
      *(tiling.wide(tiling.h * tiling.blocks, tiling.chunks, to.SIDE), tiling.by_segment()),
    ),
    (
      *(to.shared(1, to.SIDE, tiling.k), to.shared(1, to.SIDE, tiling.k)),
      *(to.shared(1, to.SIDE, to.SIDE), to.shared(1, to.SIDE, to.SIDE)),
      *(to.shared(1, tiling.k, to.SIDE), tiling.sums(1), tiling.sums(1)),
      *(to.shared(tiling.k, to.SIDE), square, square, square, gpu.barriers(7, 1)),
    ),
    tiling.grid(),
    "ssd_backward",
  )(q, k, v, y_bar, sums, entries, last_bar)
  q_bar, k_bar = (tiling.add_up(z) for z in (q_bar, k_bar))
  v_bar = tiling.tokens_from(v_bar, tiling.channels)
  return q_bar, k_bar, v_bar, tiling.sums_from(log_a_bar), tiling.states_from(S_bar[:, -1])


def _backward_kernel(tiling, q, k, v, y_bar, sums, entries, last_bar, *out_and_scratch):
  q_bar, k_bar, v_bar, log_a_bar, S_bar, q_in, k_in, v_in, y_in, entry_in, *out_and_scratch = out_and_scratch
  rows_in, columns_in, after, work, pairs, before, ready = out_and_scratch
  block = Block(tiling, back=True)
  # The first commit of a chunk shows it to the tensor cores.
  before[...] = to.narrow(jnp.where(to.index(0) < to.index(1), 1.0, 0.0))

  def fetch(i, slot, barrier):
    heads = (v, v_in), (y_bar, y_in)
    block.fetch(i, slot, barrier, ((q, q_in), (k, k_in)), heads, (sums, rows_in, columns_in))
    plgpu.copy_gmem_to_smem(entries.at[block.by_chunk(i)], entry_in.at[slot], barrier)

  def tile(i, slot, out, after_bar):
    q_t, k_t, v_t, y_t, entry = (z.at[slot] for z in (q_in, k_in, v_in, y_in, entry_in))
    decay = Decays(rows_in.at[slot])
    inside = decay.inside(columns_in.at[slot])
    weights = inside * product(q_t, to.turned(k_t))
    weights_bar = product(y_t, to.turned(v_t))
    for n, z in enumerate(after_bar):
      after[to.part(n)] = to.narrow(z)
    work[...], pairs[...] = to.narrow(weights), to.narrow(weights * weights_bar)
    plgpu.commit_smem()
    stored_bar, leave = product(k_t, after), decay.leave()
    v_t_bar = product(to.turned(work), y_t) + leave * stored_bar
    read_bar, stored = decay.enter() * to.load(y_t), leave * to.load(v_t)
    across = sum((to.load(entry.at[to.part(n)]) * z).sum(1) for n, z in enumerate(after_bar))
    through = jnp.where(
      to.past(),
      product(pairs, before) + to.spread((product(q_t, entry) * read_bar).sum(1), 0),
      to.spread((stored * stored_bar).sum(1), 0),
    )
    through = (through + decay.across() * to.spread(across, 0)).sum(0)
    gpu.store(log_a_bar.at[block.row, block.number, block.chunk(i)], through)
    # All threads have what they read before one writes in its place.
    plgpu.commit_smem()
    work[...], pairs[...] = to.narrow(v_t_bar), to.narrow(inside * weights_bar)
    y_t[...], v_t[...] = to.narrow(read_bar), to.narrow(stored)
    plgpu.commit_smem()
    return [_parts(n, z, decay, q_t, k_t, v_t, y_t, entry, after, pairs) for n, z in enumerate(after_bar)]

  def put(i, out):
    plgpu.copy_smem_to_gmem(q_in.at[0], q_bar.at[block.by_block(i)], commit_group=False)
    plgpu.copy_smem_to_gmem(k_in.at[0], k_bar.at[block.by_block(i)], commit_group=False)
    plgpu.copy_smem_to_gmem(work, v_bar.at[block.by_head(i)])
    # The next chunk comes to where these are.
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)

  block.write(S_bar, gpu.stream(tiling.each, ready, fetch, tile, put, block.states(last_bar), 1))


def _parts(n, after_bar, decay, q, k, stored, read_bar, entry, after, scores_bar):
  """Returns the n-th part of what flows to the state before; those of q and k come where the tokens were."""
  columns = to.part(n)
  q_n, k_n = q.at[:, columns], k.at[:, columns]
  q_bar = product(scores_bar, k_n) + product(read_bar, to.turned(entry.at[columns]))
  k_bar = product(to.turned(scores_bar), q_n) + product(stored, to.turned(after.at[columns]))
  S_bar = decay.across() * after_bar + _inflow(q, n, read_bar)
  plgpu.commit_smem()
  q_n[...], k_n[...] = to.narrow(q_bar), to.narrow(k_bar)
  return S_bar


_ssd = kept_states.differentiable(_run, _backward, state=4)
