"""Keeps what stands past a row's length out of a mixer, on its way in and on its way out."""

from jaxtyping import Array, Float, Int

from kernels import inputs


def blank_past(x: Float[Array, "b t ..."], lengths: Int[Array, "b"] | None) -> Float[Array, "b t ..."]:
  """x with zeros past `lengths`, by `where`: NaN there reaches neither values nor gradients. x itself without lengths.

  A mixer blanks its input (a dense layer would multiply NaN by a zero gradient) and its output (which biases fill).
  """
  return x if lengths is None else inputs.blank(inputs.valid(lengths, x.shape[1]), x)[0]
