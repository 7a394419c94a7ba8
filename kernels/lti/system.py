"""What `lti` wants to know of a time-invariant system, and for how many steps at once."""

from typing import NamedTuple

from jaxtyping import Array, Float, Inexact


class System(NamedTuple):
  """x_t = A x_{t-1} + B u_t, y_t = Re(C x_t) for each channel, as powers of A for chunks of c tokens.

  A mixer computes the powers as its parametrisation allows; factors of the output (2 for conjugate pairs stored once)
  and skips from u to y belong in K and O.
  """

  K: Float[Array, "e l"]  # K_i = Re(C A^i B): the taps
  A: Inexact[Array, "e n"] | Inexact[Array, "e n n"]  # one step; "e n" is a diagonal
  O: Inexact[Array, "e c n"]  # C A^{i+1}: from the state before a chunk to output i of the chunk  # noqa: E741
  I: Inexact[Array, "e n c"]  # A^{c-1-i} B: from input i of a chunk to the state after it  # noqa: E741
  P: Inexact[Array, "e n"] | Inexact[Array, "e n n"]  # A^c: from the state before a chunk to the state after it


def plan(t: int, *, packed: bool) -> tuple[int, int]:
  """How many taps l and which chunk length c `lti` wants in the System of a call with t tokens.

  Args:
    packed: whether the call has `reset`.
  """
  c = min(64, t)
  return c if packed else t, c
