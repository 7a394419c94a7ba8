"""The part of the contract that depends on whether a mixer's tokens see later ones."""

import flax.linen as nn

from layers.mixer import Mixer


class Masked(Mixer):
  """A mixer with a field `mask`: "causal", or "full", with which every token sees its whole document."""

  @property
  def STATE(self) -> str:
    """'none' with mask="full", else 'fixed'."""
    return "none" if self.mask == "full" else "fixed"

  @nn.nowrap
  def no_state(self) -> str:
    return "mask='full' sees later tokens, so it has no state; call it, or use mask='causal'"
