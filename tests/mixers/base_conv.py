"""BaseConv of Based: small sizes, parameter count, oracle, refusals."""

SMALL = {"": {}}
ORACLE = {"": {}, "no biases": dict(expand=1, taps=4, bias=False, conv_bias=False)}
REFUSED = [(dict(taps=0), "taps=0; it must be at least 1"), (dict(expand=0), "expand=0; it must be at least 1")]


def count(d, expand=2, taps=3):
  """In, out and their biases, convolution and its bias."""
  inner = expand * d
  return 3 * d * inner + 2 * inner + d + (taps + 1) * inner
