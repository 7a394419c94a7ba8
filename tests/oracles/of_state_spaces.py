"""Mixers of `ssm/`: what is built -> the oracle and what it must be told."""

from typing import Any

from tests.oracles import (
  gru,
  lstm,
  min_gru,
  rnn,
  rwkv_channel,
  slstm,
)

D = 8  # width

CASES: dict[str, Any] = {
  "gru": (dict(name="gru"), gru.run, {}),
  "gru, after": (dict(name="gru", reset_gate="after"), gru.run, dict(reset_gate="after")),
  "lstm": (dict(name="lstm"), lstm.run, {}),
  "min_gru": (dict(name="min_gru", expand=2), min_gru.run, {}),
  "min_gru, positive": (dict(name="min_gru", candidate="positive"), min_gru.run, dict(candidate="positive")),
  "rnn": (dict(name="rnn"), rnn.run, {}),
  "rnn, relu": (dict(name="rnn", activation="relu"), rnn.run, dict(activation="relu")),
  "rwkv_channel": (dict(name="rwkv_channel", layer=1, depth=3), rwkv_channel.run, {}),
  "rwkv_channel, with receptance": (dict(name="rwkv_channel", version=6), rwkv_channel.run, dict(receptance=True)),
  "slstm": (dict(name="slstm", heads=2), slstm.run, {}),
  "slstm, exp": (dict(name="slstm", heads=4, forget="exp", taps=2), slstm.run, dict(forget="exp")),
}
