"""SS2D: small sizes, parameter count, oracle, refusals."""

SMALL = {"": dict(state=2, dt_rank=2)}
ORACLE = {
  "": (dict(state=2, dt_rank=2), dict(columns=7)),
  "biases": (dict(taps=5, inner=6, bias=True, conv_bias=True), dict(columns=7)),
}
SLOW = ("biases",)
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(taps=4), "SS2D: taps=4; the pixel stands in the middle"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
  (dict(rows=4), "SS2D: rows=4 does not divide the 2 tokens of the sequence"),
]
TRAINED = {"slow": {"paths/A_log"}, "undecayed": {"conv/kernel"}}


def count(d, state, dt_rank):
  """In, out; convolution; four paths with A and D, delta, B and C, dt with bias; norm."""
  e = 2 * d
  return 2 * d * e + 9 * e + 4 * e * (state + 1 + dt_rank + 2 * state + dt_rank + 1) + 2 * e
