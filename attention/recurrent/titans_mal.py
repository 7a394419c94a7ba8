"""Titans' memory as a layer (MAL): attention over a window of what a memory answers. State: a window.

Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663. Theirs: p -> P, N_p -> persistent.
"""

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float, Int

from attention.recurrent.with_memory import State, WithWindow


class TitansMAL(WithWindow):
  """o = SWA([P | M(x)])     eqs. (29)-(31)

  with the memory M of `titans`. Every token sees all persistent tokens P beside its window, in every document;
  rotations place them in front of the document, the last one at -1.
  Departs: the paper's is SWA(M([P | x])). At the start of each document M(P) would be the same N_p vectors; here these
  are learned as they are, are seen from the whole document, and M is not trained on them.

  Attributes:
    heads: of the attention; the largest divisor of the width not above 8 that leaves pairs to turn, if not given.
    persistent: N_p; there may be none.
    position: of the attention, "rope" or "none".
    window: tokens that the attention sees, the current one included.
    memory: fields of `Titans`.
  Raises:
    ValueError: as `Attention` and `Titans`.
  """

  STATE = "window"

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: State,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], State]:
    """All tokens from `state`."""
    m, memory = self.titans.prefill(x, state.memory, reset=reset, lengths=lengths)
    y, attention = self.attention.prefill(m, state.attention, reset=reset, lengths=lengths)
    return y, State(memory, attention)
