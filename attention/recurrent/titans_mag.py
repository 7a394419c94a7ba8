"""Titans' memory as a gate (MAG): attention over a window, gated by a memory beside it. State: a window.

Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663. Theirs: p -> P, N_p -> persistent.
"""

from jaxtyping import Array, Float

from attention.recurrent.with_memory import Gate, State, WithWindow
from layers.mixer import Where


class TitansMAG(WithWindow):
  """y = SWA([P | x]),  o = norm(y) sigmoid(norm(M(x)))     eqs. (26)-(28)

  with the memory M of `titans`. Every token sees all persistent tokens P beside its window, in every document;
  rotations place them in front of the document, the last one at -1.
  Departs: M does not read P. At the start of each document it would take the same N_p steps from the same weights, and
  a deep memory's initial weights are learned anyway. sigmoid: see `Gate`.

  Attributes:
    window: tokens that the attention sees, the current one included.
    heads, persistent, position, memory: as in `titans_mac`.
  """

  def setup(self):
    super().setup()
    self.gate = Gate(self.norm_eps)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    m, memory = self.titans.prefill(x, state.memory, **where.masks)
    y, attention = self.attention.prefill(x, state.attention, **where.masks)
    return self.gate(y, m), State(memory, attention)
