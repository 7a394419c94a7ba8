"""FNet: Fourier transforms over channels and tokens in place of attention. State: none.

Lee-Thorp et al. 2022, arXiv:2105.03824.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import dispatch, documents
from kernels.dft import dft
from kernels.inputs import Lengths, compute_dtype
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one


class FNet(Mixer):
  """y = Re(F_t(F_d(x))), two discrete Fourier transforms, over the channels and over the tokens     sec. 3

  There are no parameters. A document has as many frequencies as tokens. Departs: nothing.
  """

  width: int

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return documents.each(_transform, (), x, **where.masks)


def _transform(_, x: Float[Array, "b t d"], lengths: Lengths) -> Float[Array, "b t d"]:
  def transform(x: Float[Array, "b t d"], lengths: Lengths) -> tuple[Float[Array, "b t d"]]:
    z = jnp.fft.fft(x.astype(compute_dtype(x)), axis=-1)
    return (dft(z, lengths).real.astype(x.dtype),)

  # each device its own rows: XLA for CPUs would transform all of them everywhere
  return dispatch.shard(transform, ("b t d", "b"), ("b t d",))(x, lengths)[0]
