"""GSS: small sizes, parameter count, oracle, refusals; initial values and default sizes."""

from tests.initial import normal, shaped

SMALL = {"": dict(inner=3, outer=12, state=4)}
ORACLE = {"": dict(inner=3, outer=12, state=4)}
REFUSED = [
  (dict(inner=0), "GSS: inner=0; it must be at least 1"),
  (dict(outer=-4), "GSS: outer=-4"),
  (dict(state=0), "GSS: state=0"),
]
INITIAL = [
  (
    dict(width=64),
    {
      "v_proj": shaped(64, 256),
      "u_proj": shaped(64, 16),
      "y_proj": shaped(16, 256),
      "out_proj": shaped(256, 64),
      "C_re": shaped(16, 512),
      "C_re C_im": normal(512**-0.5),
      "lam_log lam_im_log": normal(1, 0.1),
    },
  )
]
TRAINED = {"slow": {"lam_log", "lam_im_log", "C_re", "C_im"}}


def count(d, inner, outer, state):
  """Gate and out, in and out of the state space; lam, C; D."""
  return (2 * outer + inner) * d + inner * outer + 2 * state * (inner + 1) + inner
