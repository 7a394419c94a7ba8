"""Event-SSM: S5 on events, each of which comes at a time of its own. State: fixed (none if bidirectional).

Schoene et al. 2024, arXiv:2404.18508. Theirs: H -> d, P -> state, L -> t, Delta -> dt, Delta t_k -> side["dt"].
"""

from ssm.lti.s5 import S5


class EventSSM(S5):
  """h_k = exp(lam dt gap_k) h_{k-1} + gain B x_k,  y_k = 2 Re(C h_k) + D x_k

  with gap_k = side["dt"], the time since the event before in units of the data, 1 if not given. `disc` chooses the
  gain: "async" (exp(lam dt) - 1)/lam, which knows no gaps; "dirac" 1; "zoh" (exp(lam dt gap_k) - 1)/lam, S5's own rule,
  which weighs an event by the silence before it. With unit gaps "async" and "zoh" are S5. All else is S5's, the initial
  values among it. Departs: pooling is no part of a mixer: what makes sequences shorter is `layers.event_pool`, and what
  reads out a mean over time is the pool "time" of a classifier.

  Attributes:
    state: as all that follow but `disc`, see `S5`.
  Raises:
    ValueError: as S5.
  """

  disc: str = "async"
  activation: str = "half_glu2"

  STATE = S5.STATE
  DISCS = ("async", "dirac", "zoh")
