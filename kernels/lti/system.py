"""The time-invariant system that `lti` runs, as powers of its transition, and the lengths of its chunks."""

from typing import NamedTuple

from jaxtyping import Array, Float, Inexact

from kernels import dispatch, sequence_parallel


class System(NamedTuple):
  """x_t = A x_{t-1} + B u_t, y_t = Re(C x_t) for each channel, as powers of A for chunks of c tokens.

  A mixer computes the powers as its parametrisation allows; factors of the output (2 for conjugate pairs stored once)
  and skips from u to y belong in K and O.
  """

  K: Float[Array, "e l"]  # K_i = Re(C A^i B): the taps
  A: Inexact[Array, "e n"] | Inexact[Array, "e n n"]  # one step; "e n" is a diagonal
  O: Inexact[Array, "e c n"]  # C A^{i+1}: from the state before a chunk to output i of the chunk
  I: Inexact[Array, "e n c"]  # A^{c-1-i} B: from input i of a chunk to the state after it
  P: Inexact[Array, "e n"] | Inexact[Array, "e n n"]  # A^c: from the state before a chunk to the state after it
  far: Inexact[Array, "e n"] | None = None  # A^FAR of a diagonal, with which `cpp` makes good that A is rounded


FAR = 64
CHUNK = 64  # on two CPU cores, at 16 to 64 states a channel: 32 and 128 are no faster


def plan(t: int, *, packed: bool) -> tuple[int, int]:
  """Returns how many taps l a call of t tokens without a state needs, and the chunk length c of one with a state.

  With l = t one convolution with all taps is fastest where no state goes in or comes out (on a CPU, if no documents are
  packed and no devices share the time); it is an FFT, see `kernels.long_conv`. Else l = c, and such a call goes through
  `lti` from a zero state like the others, which need no more than c taps; so it does where the form "causal" is forced.

  Args:
    packed: whether the call has `reset`.
  """
  c = -(-t // max(1, -(-t // CHUNK)))
  # t taps would be on every device that has t/p tokens
  whole = dispatch.prefer("fft", "chunks", "causal") == "fft" and not packed and sequence_parallel.count() == 1
  return t if whole else c, c
