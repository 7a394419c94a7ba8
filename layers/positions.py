"""Where a token stands, as rotations of queries and keys or as vectors to be added."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LAYOUTS = ("half", "interleaved")


def rope(
  x: Float[Array, "b t h k"], positions: Int[Array, "b t"], *, theta: float = 1e4, layout: str = "half"
) -> Float[Array, "b t h k"]:
  """Turns pair i of each head by positions * theta^(-2i/k), so that q . k depends on the difference of positions.

  Su et al. 2021, arXiv:2104.09864, sec. 3.2.2. Angles in float32; the result has the dtype of x.

  Args:
    theta: the longest wavelength is about 2 pi theta.
    layout: pairs are (i, i + k/2) ("half": LLaMA in Hugging Face, GPT-NeoX) or (2i, 2i + 1) ("interleaved": the paper,
      GPT-J). A checkpoint fits one of them.

  Raises:
    ValueError: k is odd, or `layout` is unknown.
  """
  k = x.shape[-1]
  if k % 2:
    raise ValueError(f"rope: head size {k} is odd; it turns pairs")
  if layout not in LAYOUTS:
    raise ValueError(f"rope: no layout {layout!r}; choose from {list(LAYOUTS)}")
  angles = _angles(positions, k, theta, jnp.promote_types(x.dtype, jnp.float32))[:, :, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  wide = x.astype(angles.dtype)
  if layout == "half":
    first, second = jnp.split(wide, 2, axis=-1)
  else:
    first, second = wide[..., 0::2], wide[..., 1::2]
  turned = (first * cos - second * sin, first * sin + second * cos)
  y = jnp.concatenate(turned, axis=-1) if layout == "half" else jnp.stack(turned, axis=-1).reshape(x.shape)
  return y.astype(x.dtype)


def sinusoidal(positions: Int[Array, "*b"], width: int, *, theta: float = 1e4) -> Float[Array, "*b d"]:
  """sin and cos, side by side, of positions * theta^(-2i/width)     Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5.

  Raises:
    ValueError: `width` is odd.
  """
  if width % 2:
    raise ValueError(f"sinusoidal: width={width} is odd; positions are pairs of sine and cosine")
  angles = _angles(positions, width, theta, jnp.float32)
  return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*positions.shape, width)


def _angles(positions: Int[Array, "*b"], width: int, theta: float, dtype) -> Float[Array, "*b m"]:
  frequencies = theta ** (-jnp.arange(0, width, 2, dtype=dtype) / width)
  return positions[..., None].astype(dtype) * frequencies
