"""S6: small sizes, parameter count, oracle, refusals; Mamba's file has the initial values and the step's extremes."""

SMALL = {"": dict(state=4, dt_rank=2)}
ORACLE = {"": (dict(state=4, dt_rank=2), {}), "held": (dict(state=3, disc="zoh"), dict(disc="zoh"))}
TRAINED = {"slow": {"A_log"}}
REFUSED = [
  (dict(state=0), "S6: state=0; it must be at least 1"),
  (dict(groups=3), "S6: groups=3 does not divide the inner width 8"),
  (dict(spectrum="complex", state=5), "S6: state=5; conjugate pairs are stored once, so it must be even"),
]


def count(d, state=16, dt_rank=1, **_):
  """A and D; delta, B and C; dt with bias."""
  return d * (state + 1) + d * (dt_rank + 2 * state) + (dt_rank + 1) * d
