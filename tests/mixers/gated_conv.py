"""LFM2's gated short convolution: small sizes, parameter count, oracle, refusals; initial values."""

from tests.initial import normal, uniform

SMALL = {"": {}}
ORACLE = {"": {}, "biases": dict(taps=4, bias=True)}
REFUSED = [(dict(taps=0), "taps=0; it must be at least 1")]
INITIAL = [(dict(width=64), {"in_proj out_proj": normal(1 / 8, 0.05), "conv": uniform(3**-0.5, 0.05)})]


def count(d, taps=3):
  """In and out, convolution."""
  return 4 * d * d + taps * d
