"""Event-SSM: S5 on events, each of which comes at a time of its own. State: fixed (none if bidirectional).

Schoene et al. 2024, arXiv:2404.18508. Theirs: H -> d, P -> state, L -> t, Delta -> dt, Delta t_k -> side["dt"].
"""

from ssm.lti.s5 import S5


class EventSSM(S5):
  """h_k = exp(lam dt gap_k) h_{k-1} + gain B x_k,  y_k = 2 Re(C h_k) + D x_k

  with gap_k = side["dt"], the time since the event before in units of the data, 1 if not given. `disc` chooses the
  gain: "async" (exp(lam dt) - 1)/lam, whatever the gaps; "dirac" 1; "zoh" (exp(lam dt gap_k) - 1)/lam, S5's own rule,
  which weighs an event by the silence before it. With unit gaps "async" and "zoh" are S5. The rest is S5, initial
  values included. Departs: pooling is no part of the mixer: `layers.event_pool` makes sequences shorter, and the pool
  "time" of a classifier reads out a mean over time.

  Attributes:
    disc: "async", "dirac" or "zoh"; the other fields are those of `S5`.
  """

  disc: str = "async"
  activation: str = "half_glu2"

  DISCS = ("async", "dirac", "zoh")
