"""The least time of a kernel on a device: what it must read, write and compute, over what the device does at best.

The rates are measured in the run that uses them; nothing here is a number of a data sheet. A floor knows three limits,
memory, matrix products and exponentials, and takes no account of the order of a recurrence, of launches, or of the
instructions between: it can be out of reach. A small array that stays in a cache can be below it.

Letters: b rows, t tokens, e channels, n numbers of a channel's state, h heads of k by p numbers, g groups, w taps; s
bytes of a number of the inputs. States are float32. A function gives the passes forward and backward; what has no
gradient of its own, or is for one token, has no pass backward.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TILE = 128  # tokens of a chunk, where a recurrence becomes products of matrices
EXPS = 16  # one after the other in a register, so that memory is no limit
STATE = 4  # bytes of a number of a state


class Rates(NamedTuple):
  """The highest rates of the device, each for one second."""

  bytes: float  # read and written in a copy
  flops_float32: float
  flops_bfloat16: float
  exps: float


class Work(NamedTuple):
  """The work that one pass must do at least."""

  bytes: float
  flops: float = 0  # in products of matrices
  exps: float = 0


class Passes(NamedTuple):
  forward: Work
  backward: Work = Work(0)  # of nothing: there is no such pass


def measure(*, mib: int, side: int, rounds: int = 5) -> Rates:
  """Measures the fastest of some copies of `mib` MiB, products of `side` x `side` matrices, and chains of exp.

  Exponentials are XLA's; a kernel that takes the hardware's own, less exact ones, may be faster.
  """
  x = jnp.ones(mib * 2**18, jnp.float32)
  chain = x[: 2**20]
  a = jnp.ones((side, side), jnp.float32)
  product = lambda a: jnp.matmul(a, a, precision="highest")

  def exponentials(x):
    for _ in range(EXPS):
      x = jnp.exp(-x)
    return x

  return Rates(
    bytes=2 * x.nbytes / _fastest(jnp.negative, x, rounds),
    flops_float32=2 * side**3 / _fastest(product, a, rounds),
    flops_bfloat16=2 * side**3 / _fastest(product, a.astype(jnp.bfloat16), rounds),
    exps=EXPS * chain.size / _fastest(exponentials, chain, rounds),
  )


def _fastest(fn: Callable, x: jax.Array, rounds: int) -> float:
  """Seconds; several calls are on their way at a time, since starting one takes as long as a small one runs."""
  calls, program, seconds = 4, jax.jit(fn), []
  jax.block_until_ready(program(x))
  for _ in range(rounds):
    start = time.perf_counter()
    for _ in range(calls):
      y = program(x)
    jax.block_until_ready(y)
    seconds.append((time.perf_counter() - start) / calls)
  return min(seconds)


def seconds(works: tuple[Work, ...], dtype: str, rates: Rates) -> tuple[float, str]:
  """Returns the least time of passes that run one after the other, and what limits the longest of them."""
  flops = rates.flops_bfloat16 if dtype == "bfloat16" else rates.flops_float32
  limits = [
    {"memory": work.bytes / rates.bytes, "products": work.flops / flops, "exp": work.exps / rates.exps}
    for work in works
  ]
  longest = max(limits, key=lambda times: max(times.values()))
  return sum(max(times.values()) for times in limits), max(longest, key=lambda name: longest[name])


def linear_scan(*, b: int, t: int, n: int, s: int) -> Passes:
  """Forward reads a, x, writes y: 3 b t n s. Backward reads a, y, y_bar, writes a_bar, x_bar: 5 b t n s."""
  sequence, state = b * t * n * s, b * n * STATE
  return Passes(Work(3 * sequence + 2 * state), Work(5 * sequence + 2 * state))


def rg_lru(*, b: int, t: int, e: int, s: int) -> Passes:
  """Forward reads u, r, i, writes y: 4 b t e s, with three exponentials a number. Backward reads u, r, i, y_bar, writes
  three gradients, 7 b t e s, and has all exponentials again; states can be made again from a few that are kept.
  """
  sequence, state, exps = b * t * e * s, b * e * STATE, 3 * b * t * e
  return Passes(Work(4 * sequence + 2 * state, exps=exps), Work(7 * sequence + 2 * state, exps=exps))


def lstm(*, b: int, t: int, e: int, s: int) -> Passes:
  """Forward reads what enters four gates, writes y: 5 b t e s, with h R of 8 e FLOPs a number of y, and an exponential
  for each gate and for tanh c. Backward reads gates, c, y and y_bar and writes the gates' gradients, 11 b t e s, with
  two products (h_bar, R_bar) and tanh c again.
  """
  numbers, once = b * t * e, 4 * b * e * STATE + 4 * e * e * s
  return Passes(
    Work(5 * numbers * s + once, 8 * numbers * e, 5 * numbers), Work(11 * numbers * s + once, 16 * numbers * e, numbers)
  )


def max_scan(*, b: int, t: int, n: int, s: int) -> Passes:
  """Reads log_a, x, writes m: 3 b t n s. Its gradient is 0."""
  return Passes(Work(3 * b * t * n * s))


def selective_scan(*, b: int, t: int, e: int, n: int, g: int, s: int) -> Passes:
  """Forward reads x, dt, B, C, writes y: (3 b t e + 2 b t g n) s, with b t e n exponentials.

  Backward reads x, dt, B, C, y_bar and writes four gradients: (5 b t e + 4 b t g n) s, and all exponentials again.
  """
  channels, columns, state, exps = b * t * e * s, b * t * g * n * s, (2 * b + 1) * e * n * STATE, b * t * e * n
  return Passes(
    Work(3 * channels + 2 * columns + state, exps=exps), Work(5 * channels + 4 * columns + 2 * state, exps=exps)
  )


def gated_selective_scan(*, b: int, t: int, e: int, n: int, g: int, s: int) -> Passes:
  """Counts as `selective_scan`, with D, z and an exponential each for softplus and SiLU; no logarithms and quotients.

  Backward reads D and z again and writes their gradients.
  """
  forward, backward = selective_scan(b=b, t=t, e=e, n=n, g=g, s=s)
  more, exps = b * t * e * s + e * STATE, 2 * b * t * e
  return Passes(
    Work(forward.bytes + more, exps=forward.exps + exps), Work(backward.bytes + 2 * more, exps=backward.exps + exps)
  )


def ssd(*, b: int, t: int, h: int, g: int, k: int, p: int, s: int) -> Passes:
  """Forward reads q, k, v, log_a, writes y: b t (2 g k + 2 h p + h) s. With chunks of c = TILE tokens it has products
  of 2 c k FLOPs a token and group (q k^T) and 2 c p + 4 k p a token and head (y within a chunk, y from the state, the
  state).

  Backward reads those and y_bar, writes four gradients: b t (4 g k + 3 h p + 2 h) s. It has 3 x 2 c k a group (q k^T,
  q_bar, k_bar), 2 x 2 c p a head (scores_bar, v_bar), and 5 x 2 k p a head (state, its gradient, q_bar, k_bar, v_bar).
  """
  tokens, state = b * t, 2 * b * h * k * p * STATE
  scores, mixed, stepped = 2 * TILE * k * g, 2 * TILE * p * h, 2 * k * p * h
  return Passes(
    Work(tokens * (2 * g * k + 2 * h * p + h) * s + state, tokens * (scores + mixed + 2 * stepped)),
    Work(tokens * (4 * g * k + 3 * h * p + 2 * h) * s + state, tokens * (3 * scores + 2 * mixed + 5 * stepped)),
  )


def gated_linear_attention(*, b: int, t: int, h: int, k: int, p: int, s: int) -> Passes:
  """Counts as `ssd` with g = h, and with a decay for each of the k rows, of which there is one exponential each, twice
  backward: (k - 1) h s bytes a token more forward, twice that backward.
  """
  forward, backward = ssd(b=b, t=t, h=h, g=h, k=k, p=p, s=s)
  decays = b * t * h * k
  more = b * t * h * (k - 1) * s
  return Passes(
    Work(forward.bytes + more, forward.flops, decays), Work(backward.bytes + 2 * more, backward.flops, 2 * decays)
  )


def delta_rule(*, b: int, t: int, h: int, k: int, p: int, s: int) -> Passes:
  """Counts as `ssd` with g = h, and once more what finds and replaces: one further array w of b t h k s, products w k^T
  and (its inverse) v of 2 c k + 2 c p FLOPs and w S of 2 k p. Backward each of the three has two, and is done again.
  """
  forward, backward = ssd(b=b, t=t, h=h, g=h, k=k, p=p, s=s)
  found = b * t * h * k * s
  more = b * t * h * (2 * TILE * (k + p) + 2 * k * p)
  return Passes(
    Work(forward.bytes + found, forward.flops + more), Work(backward.bytes + 2 * found, backward.flops + 3 * more)
  )


def short_conv(*, b: int, t: int, e: int, s: int) -> Passes:
  """Forward reads x, writes y: 2 b t e s. Backward reads x and y_bar, writes x_bar: 3 b t e s."""
  return Passes(Work(2 * b * t * e * s), Work(3 * b * t * e * s))


def lti(*, b: int, t: int, e: int, n: int, s: int) -> Passes:
  """Forward reads u, writes y: 2 b t e s. Backward reads u and y_bar, writes u_bar: 3 b t e s.

  Token after token a complex state takes eight fused products and sums forward (h, and its part of y), 22 backward
  (h again, its gradient, and those of A and of B C); FFTs take fewer where n is large.
  """
  forward, backward = short_conv(b=b, t=t, e=e, s=s)
  states = b * t * e * n
  return Passes(Work(forward.bytes, 16 * states), Work(backward.bytes, 44 * states))


def neural_memory(*, b: int, t: int, h: int, k: int, p: int, s: int) -> Passes:
  """Counts a memory of one matrix as `ssd` with g = h: errors of all tokens at their chunk's matrix and the second
  state, its momentum, are two more products of 2 k p FLOPs a token forward, four backward.
  """
  forward, backward = ssd(b=b, t=t, h=h, g=h, k=k, p=p, s=s)
  more, numbers = b * t * h * 2 * k * p, b * t * h * s
  return Passes(
    Work(forward.bytes + 2 * numbers, forward.flops + 2 * more),
    Work(backward.bytes + 4 * numbers, backward.flops + 4 * more),
  )


def cauchy(*, e: int, k: int, n: int, t: int, s: int) -> Passes:
  """Reads v and a, writes y at t points, 2 e k t numbers. Its products are those of 2 n real numbers of v with the
  complex reciprocals of 2 n pairs, 8 n FLOPs a number of y; backward as many for v and as many for a.
  """
  read, written, products = 2 * e * n * (k + 1) * 4, 2 * e * k * t * 4, 8 * e * k * n * t
  return Passes(Work(read + written, products), Work(2 * read + written, 2 * products))


def roesser(*, e: int, n: int, t: int, s: int) -> Passes:
  """Writes K of a side of t, e t t numbers; 12 FLOPs a state and place (four products for h and v, two for K) in
  real numbers, and twice that backward, which reads K's gradient.
  """
  places, read = e * t * t, 8 * e * n * 4
  return Passes(Work(4 * places + read, 12 * places * n), Work(4 * places + 2 * read, 24 * places * n))


def experts(*, b: int, t: int, d: int, f: int, e: int, k: int, s: int) -> Passes:
  """Reads x and the three matrices of e experts, writes y; 6 d f FLOPs for each of a token's k experts.

  Backward reads x, y_bar and the matrices, writes their gradients, with twice the products.
  """
  tokens, matrices, products = b * t * d * s, 3 * e * d * f * s, 6 * b * t * k * d * f
  return Passes(Work(2 * tokens + matrices, products), Work(3 * tokens + 2 * matrices, 2 * products))


def conv_step(*, b: int, e: int, w: int, s: int) -> Passes:
  """Reads x and w - 1 taps of one token, writes y and the taps."""
  return Passes(Work(2 * b * e * s + 2 * b * (w - 1) * e * s))


def selective_step(*, b: int, e: int, n: int, g: int, s: int) -> Passes:
  """Reads and writes the state of b e n numbers for one token, reads x, dt, z, B, C and the layer's A, writes y; an
  exponential for each number of the state, one each for softplus and SiLU.
  """
  state, channels = b * e * n * STATE, b * e * s
  return Passes(Work(2 * state + 4 * channels + 2 * b * g * n * s + e * n * STATE, exps=b * e * n + 2 * b * e))


def ssd_step(*, b: int, h: int, g: int, k: int, p: int, w: int, s: int) -> Passes:
  """Reads and writes the state of b h k p numbers and the taps for one token, reads x and z, writes y."""
  e, m = h * p, h * p + 2 * g * k
  return Passes(Work(2 * b * h * k * p * STATE + 2 * b * (w - 1) * m * s + b * (m + 2 * e) * s, exps=b * (m + e)))


def attention(*, b: int, t: int, h: int, k: int, s: int) -> Passes:
  """Causal. Forward reads q, k, v, writes y: 4 b t h k s; two products of 2 k FLOPs and one exponential for each of the
  b h t (t + 1) / 2 pairs. Backward reads those and y_bar, writes three gradients: 8 b t h k s, with five products.
  """
  pairs, one = b * h * t * (t + 1) / 2, b * t * h * k * s
  return Passes(Work(4 * one, 2 * 2 * k * pairs, pairs), Work(8 * one, 5 * 2 * k * pairs, pairs))


def itemsize(dtype: str) -> int:
  return np.dtype(jnp.dtype(dtype)).itemsize
