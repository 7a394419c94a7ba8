"""Vim: small sizes, parameter count, oracle, refusals."""

SMALL = {"": dict(state=3, dt_rank=2)}
ORACLE = {
  "": (dict(state=3, dt_rank=2), {}),
  "sum": (dict(state=2, inner=6, bias=True, conv_bias=False, merge="sum"), dict(merge="sum")),
}
SLOW = ("sum",)
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(merge="concat"), "merge='concat'; choose from"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
]
TRAINED = {"slow": {"forward/A_log", "backward/A_log"}}


def count(d, state, dt_rank):
  """In, out; twice a convolution with bias, A and D, delta, B and C, dt with bias."""
  e = 2 * d
  return 3 * d * e + 2 * e * (5 + state + 1 + dt_rank + 2 * state + dt_rank + 1)
