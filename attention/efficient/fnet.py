"""FNet: Fourier transforms over channels and tokens in place of attention. State: none.

Lee-Thorp et al. 2022, arXiv:2105.03824.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import documents
from kernels.dft import dft
from kernels.inputs import compute_dtype
from layers.lengths import blank_past
from layers.sizes import at_least_one


class FNet(nn.Module):
  """y = Re(F_t(F_d(x))), two discrete Fourier transforms, over the channels and over the tokens     sec. 3

  There are no parameters. A document has as many frequencies as tokens. Departs: nothing.

  Raises:
    ValueError: the width is below 1.
  """

  width: int

  STATE = "none"
  SLOW = ()
  SIDE = ()

  def __post_init__(self):
    at_least_one(self, "width")
    super().__post_init__()

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens."""
    return documents.each(_mix, (), blank_past(x, lengths), reset=reset, lengths=lengths)


def _mix(_, x: Float[Array, "b t d"], lengths: Int[Array, "b"] | None) -> Float[Array, "b t d"]:
  z = jnp.fft.fft(x.astype(compute_dtype(x)), axis=-1)
  return dft(z, lengths).real.astype(x.dtype)
