"""c_t = f_t c_{t-1} + i_t g_t, y_t = h_t = o_t tanh(c_t): the LSTM, whose gates see the state, token after token."""

from typing import Any

from jaxtyping import Array, Float

from kernels import dispatch, inputs, op, sequence_parallel
from kernels.lstm import cpp, reference

IMPLS: dispatch.Impls = {
  "cpp": (cpp.lstm, cpp.why_not),
  "reference": (reference.lstm, dispatch.always),
}
OVER = sequence_parallel.Over(
  ("b t f", "d f", "b d", "b t", "b t"), "b t d", state=2, exchange=sequence_parallel.InTurn()
)


def _over(form, entered, R, h, c, *masks):
  whole = lambda entered, R, state, *masks: form(entered, R, *state, *masks)
  return OVER(whole, entered, R, (h, c), *masks)


def lstm(
  entered: Float[Array, "b t f"],
  R: Float[Array, "d f"],
  h: Float[Array, "b d"],
  c: Float[Array, "b d"],
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t d"], tuple[Float[Array, "b d"], Float[Array, "b d"]]]:
  """c_t = f_t c_{t-1} + i_t g_t,  y_t = h_t = o_t tanh(c_t);  i, f, o = sigmoid(z),  g = tanh(z),  z = entered_t + h R

  Hochreiter & Schmidhuber 1997, Neural Computation 9(8), with the forget gate of Gers, Schmidhuber & Cummins 2000. The
  state is (h, c).

  Args:
    entered: what the input and the biases add to the gates before their functions, in the order i, f, g, o; f = 4 d.
    h, c, reset, lengths, impl: as in all ops, see `kernels`.
  """
  where, dtype = op.rows(entered.shape[1], reset, lengths), inputs.compute_dtype(entered, R, h, c)
  given, R, h, c = op.cast(dtype, *where.fill(entered), R, h, c)
  args = given, R, h, c, where.reset, where.valid
  rest: dict[str, Any] = dict(out=entered[..., : h.shape[-1]], state=(h, c), one_token=reference.lstm, over=_over)
  return op.run("lstm", IMPLS, impl, args, where, **rest)
