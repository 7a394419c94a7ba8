"""Mixers of `attention/`: what is built -> the oracle and what it must be told."""

from typing import Any

from tests.oracles import (
  softmax,
  titans,
  titans_mac,
  titans_mag,
  titans_mal,
)

MEMORY_OF_TWO = dict(memory=dict(heads=2, layers=2, chunk=4))

CASES: dict[str, Any] = {
  "local": (
    dict(name="local", heads=2, window=5),
    softmax.run,
    dict(heads=2, kv_heads=1, position="rope", turned=2, window=5),
  ),
  "titans": (dict(name="titans", heads=2, inner=3, chunk=4), titans.run, dict(heads=2, layers=2, chunk=4)),
  "titans, deep": (
    dict(name="titans", layers=3, inner=5, chunk=3, rate_max=0.2, momentum=False, taps=2),
    titans.run,
    dict(heads=1, layers=3, chunk=3, rate_max=0.2, momentum=False),
  ),
  "titans, delta rule": (
    dict(name="titans", heads=2, layers=1, chunk=1, momentum=False),
    titans.run,
    dict(heads=2, layers=1, chunk=1, momentum=False),
  ),
  "titans, linear": (
    dict(name="titans", heads=4, layers=1, chunk=5, decay=False, bounded=False),
    titans.run,
    dict(heads=4, layers=1, chunk=5, decay=False, bounded=False),
  ),
  "titans_mac": (
    dict(name="titans_mac", heads=2, persistent=3, segment=4, memory=dict(heads=2, inner=3, chunk=3)),
    titans_mac.run,
    dict(heads=2, segment=4, position="rope", memory=dict(heads=2, layers=2, chunk=3)),
  ),
  "titans_mac, linear": (
    dict(name="titans_mac", heads=4, persistent=0, segment=5, position="none", memory=dict(layers=1, chunk=5)),
    titans_mac.run,
    dict(heads=4, segment=5, position="none", memory=dict(heads=1, layers=1, chunk=5)),
  ),
  "titans_mag": (
    dict(name="titans_mag", heads=2, persistent=3, window=4, memory=dict(heads=2, inner=3, chunk=4)),
    titans_mag.run,
    dict(MEMORY_OF_TWO, attention=dict(heads=2, window=4, position="rope", persistent=3)),
  ),
  "titans_mal": (
    dict(name="titans_mal", heads=1, persistent=2, window=3, memory=dict(heads=2, inner=3, chunk=4)),
    titans_mal.run,
    dict(MEMORY_OF_TWO, attention=dict(heads=1, window=3, position="rope", persistent=2)),
  ),
}
