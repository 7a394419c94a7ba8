"""Diagonal state spaces, one per channel, as S4D and its kin run them, and the powers of their transition.

Everything is exp(l log_A) computed from l and log_A, never by repeated products. The phase l Im(log_A) reaches 1e6
radians, where float32 has no digit left; it is therefore multiplied out in turns, as a 32-bit fixed-point fraction,
whose overflow is exactly the whole turns that do not matter.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from kernels.inputs import Lengths, Reset
from kernels.long_conv import long_conv
from kernels.lti import FAR, System, by_token, lti, plan

HIGHEST = jax.lax.Precision.HIGHEST
MOST = 128


class Recurrence(NamedTuple):
  """h_t = A h_{t-1} + B u_t,  y_t = Re(sum_n C h_t) + D u_t for each channel."""

  log_A: Complex[Array, "e n"]
  B: Complex[Array, "e n"]
  C: Complex[Array, "e n"]
  D: Float[Array, "e"]
  # Im(log_A) with more digits than float32 has, see `turns`; None where log_A is exact
  turns: Int[Array, "e n"] | None = None


def outputs(
  u: Float[Array, "b t e"], recurrence: Recurrence, *, reset: Reset = None, lengths: Lengths = None
) -> Float[Array, "b t e"]:
  """Computes all y from an empty state, without the next one: by one convolution with all taps where `plan` says so.

  It is an FFT, which costs the same for all n; a kernel that goes token by token is ahead of it up to MOST states.
  """
  log_A, B, C, D, turns = recurrence
  l, _ = plan(u.shape[1], packed=reset is not None)
  if l == u.shape[1] and not (log_A.shape[1] <= MOST and by_token(u, log_A)):
    return long_conv(u, taps(log_A, C * B, D, l, turns), reset=reset, lengths=lengths)
  empty = jnp.zeros((u.shape[0], *log_A.shape), log_A.dtype)
  return lti(u, _system(u, recurrence, reset), empty, reset=reset, lengths=lengths)[0]


def resume(
  u: Float[Array, "b t e"],
  recurrence: Recurrence,
  h: Complex[Array, "b e n"],
  *,
  reset: Reset = None,
  lengths: Lengths = None,
) -> tuple[Float[Array, "b t e"], Complex[Array, "b e n"]]:
  """Returns all y, going on from the state h, and the state after each row's last token."""
  if u.shape[1] == 1 and reset is None and lengths is None:
    return _one_token(u, recurrence, h)
  return lti(u, _system(u, recurrence, reset), h, reset=reset, lengths=lengths)


def _system(u: Float[Array, "b t e"], recurrence: Recurrence, reset: Reset) -> System:
  """Returns the recurrence as `lti` wants it for these inputs: in chunks, or as it is with one far power of A."""
  log_A, B, C, D, turns = recurrence
  if not by_token(u, log_A):
    return system(recurrence, plan(u.shape[1], packed=reset is not None)[1])
  A, far = (powers(log_A, jnp.array([steps]), turns).squeeze(-1) for steps in (1, FAR))
  return System(K=(at_once(recurrence) + D)[:, None], A=A, O=(C * A)[:, None], I=B[..., None], P=A, far=far)


def at_once(recurrence: Recurrence) -> Float[Array, "e"]:
  """Returns the factor Re(sum_n C_n B_n) by which an input reaches the output of its own token, beside D."""
  return jnp.sum((recurrence.C * recurrence.B).real, axis=-1)


def turns(dt: Float[Array, "..."], A_im: Float[Array, "..."]) -> Int[Array, "..."] | None:
  """Returns the exact dt A_im of float32 numbers, in turns, as a multiple of 2^-32 modulo 2^32; None for other dtypes.

  Rounding dt A_im to float32 instead would cost 0.04 radians at l = 65,536 for dt A_im = 10.
  """
  if jnp.result_type(dt, A_im) != jnp.float32:
    return None
  dt_high, dt_low = _halves(dt)
  A_high, A_low = _halves(A_im)
  return _turns(dt_high * A_high, dt_high * A_low + dt_low * A_high + dt_low * A_low)


def powers(
  log_A: Complex[Array, "e n"], exponents: Int[Array, "m"], turns: Int[Array, "e n"] | None = None
) -> Complex[Array, "e n m"]:
  """exp(log_A l) for each l >= 0 in `exponents`.

  In float32 the phase is off by at most 1e-4 radians for l = 65,536 and |Im log_A| <= 10, of the phase that `turns`
  holds or, without it, of log_A taken as exact.
  """
  size = jnp.exp(log_A.real[..., None] * exponents.astype(log_A.real.dtype))
  phase = _phases(log_A.imag, _turns(log_A.imag) if turns is None else turns, exponents)
  return jax.lax.complex(size * jnp.cos(phase), size * jnp.sin(phase))


def taps(
  log_A: Complex[Array, "e n"],
  CB: Complex[Array, "e n"],
  D: Float[Array, "e"],
  l: int,
  turns: Int[Array, "e n"] | None = None,
) -> Float[Array, "e l"]:
  """K_i = Re(sum_n CB_n A_n^i) for i < l, plus D at i = 0, without an `e n l` array.

  With i = j c + k the powers split: a batched product of `e l/c 2n` and `e 2n c`, c about sqrt(l).
  """
  c = 2 ** math.ceil(math.log2(max(1, l)) / 2)
  steps = -(-l // c)
  outer = CB[..., None] * powers(log_A, jnp.arange(steps) * c, turns)
  inner = powers(log_A, jnp.arange(c), turns)
  left = jnp.concatenate([outer.real, -outer.imag], axis=1)
  right = jnp.concatenate([inner.real, inner.imag], axis=1)
  K = jnp.einsum("enm,enc->emc", left, right, precision=HIGHEST).reshape(log_A.shape[0], steps * c)[:, :l]
  return K + jnp.where(jnp.arange(l) == 0, D[:, None], 0)


def system(recurrence: Recurrence, c: int) -> System:
  """Returns the recurrence in chunks of c tokens."""
  log_A, B, C, D, turns = recurrence
  power = powers(log_A, jnp.arange(c + 1), turns)
  return System(
    K=taps(log_A, C * B, D, c, turns),
    A=power[..., 1],
    O=(C[..., None] * power[..., 1:]).swapaxes(1, 2),
    I=B[..., None] * jnp.flip(power[..., :-1], axis=-1),
    P=power[..., -1],
  )


def _one_token(
  u: Float[Array, "b 1 e"], recurrence: Recurrence, h: Complex[Array, "b e n"]
) -> tuple[Float[Array, "b 1 e"], Complex[Array, "b e n"]]:
  """Returns the recurrence as it is written, without the powers that a chunk needs."""
  log_A, B, C, D, _ = recurrence
  h = jnp.exp(log_A) * h + B * u[:, 0, :, None]
  y = jnp.sum((C * h).real, axis=-1) + D * u[:, 0]
  return y[:, None].astype(u.dtype), h


@jax.custom_jvp
def _phases(theta: Float[Array, "e n"], turns: Int[Array, "e n"], exponents: Int[Array, "m"]) -> Float[Array, "e n m"]:
  """Returns theta times each exponent, up to whole turns; in float32 it is computed from `turns`."""
  if theta.dtype != jnp.float32:
    return theta[..., None] * exponents.astype(theta.dtype)
  whole = turns[..., None] * exponents.astype(jnp.int32)  # wraps
  return whole.astype(jnp.float32) * np.float32(2 * np.pi / 2**32)


@_phases.defjvp
def _phases_jvp(primals, tangents):
  theta, turns, exponents = primals
  return _phases(theta, turns, exponents), tangents[0][..., None] * exponents.astype(theta.dtype)


def _turns(theta: Float[Array, "..."], small: Float[Array, "..."] | float = 0.0) -> Int[Array, "..."]:
  """Returns theta + small in turns, as a multiple of 2^-32 modulo 2^32; `small` is below 2^-10 theta.

  Both factors are cut into pieces of 12 bits, so that the leading product is exact and the others, together, are too
  small for their rounding to matter. Cutting by a bit mask is safe from compilers that contract a*b + c.
  """
  theta = theta.astype(jnp.float32)
  high, low = _halves(theta)
  first, second, third = _PER_TURN
  rest = high * second + low * first + (high * third + low * second) + small * (first + second)
  return _fixed(high * first) + _fixed(rest)


def _halves(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """Returns two numbers of 12 bits whose sum is x."""
  leading = jax.lax.bitcast_convert_type(x, jnp.uint32) & np.uint32(0xFFFFF000)
  high = jax.lax.bitcast_convert_type(leading, jnp.float32)
  return high, x - high


def _fixed(turns: Float[Array, "..."]) -> Int[Array, "..."]:
  """Turns, without whole ones, as multiples of 2^-32."""
  return jnp.round((turns - jnp.round(turns)) * np.float32(2.0**32)).astype(jnp.int32)


def _pieces(value: float, bits: int, count: int) -> list[np.float32]:
  """Returns numbers of `bits` bits each, from the largest on, whose sum is nearly `value`."""
  pieces = []
  for _ in range(count):
    unit = 2.0 ** (math.floor(math.log2(value)) + 1 - bits)
    piece = math.floor(value / unit) * unit
    pieces.append(np.float32(piece))
    value -= piece
  return pieces


_PER_TURN = _pieces(1 / (2 * math.pi), bits=12, count=3)
