"""Titans' memory as a layer (MAL): attention over a window of a memory's outputs. State: a window.

Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663. Theirs: p -> P, N_p -> persistent.
"""

from jaxtyping import Array, Float

from attention.recurrent.with_memory import State, WithWindow
from layers.mixer import Where


class TitansMAL(WithWindow):
  """o = SWA([P | M(x)])     eqs. (29)-(31)

  with the memory M of `titans`. Every token sees all persistent tokens P beside its window, in every document;
  rotations place them in front of the document, the last one at -1.
  Departs: the paper's is SWA(M([P | x])). At the start of each document M(P) would be the same N_p vectors; here these
  are learned as they are, are seen from the whole document, and M is not trained on them.

  Attributes:
    window: tokens that the attention sees, the current one included.
    heads, persistent, position, memory: as in `titans_mac`.
  """

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    m, memory = self.titans.prefill(x, state.memory, **where.masks)
    y, attention = self.attention.prefill(m, state.attention, **where.masks)
    return y, State(memory, attention)
