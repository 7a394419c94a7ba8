"""RNN, LSTM and GRU beside PyTorch's."""

import pytest

from hybrids.mixer import build
from scripts.golden.rnn import LAYERS
from tests.golden.compare import check, read


@pytest.mark.parametrize("kind", [kind.lower() for kind in LAYERS])
def test_recurrent_layers_are_those_of_pytorch(kind):
  given, *rest = read("rnn", f"{kind}/")
  b, t, d = given["x"].shape
  mixer = build(kind, width=d, **({"reset_gate": "after"} if kind == "gru" else {}))

  def run(p):
    # two biases there
    own, other = p["bias_ih_l0"], p["bias_hh_l0"]
    bias = {"bias": own + other}
    if kind == "gru":
      bias = {"bias": own + other.at[2 * d :].set(0), "b": other[2 * d :]}
    params = {"W": p["weight_ih_l0"].T, "R": p["weight_hh_l0"].T} | bias
    state = mixer.init_state(b, t)
    state = state._replace(**{name: p[name][0] for name in state._fields})
    y, last = mixer.apply({"params": params}, p["x"], state, method="prefill")
    return y, *(value[None] for value in last)

  check(run, given, *rest)
