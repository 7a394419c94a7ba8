"""Mixers of `attention/`: what is built -> the oracle and what it must be told."""

from typing import Any

from tests.oracles import (
  bigbird,
  fnet,
  linear_transformer,
  linformer,
  luna,
  mla,
  nystromformer,
  performer,
  reformer,
  softmax,
  titans,
  titans_mac,
  titans_mag,
  titans_mal,
)

YARN = dict(rule="yarn", factor=4.0, trained=300)

MEMORY_OF_TWO = dict(memory=dict(heads=2, layers=2, chunk=4))

CASES: dict[str, Any] = {
  "bigbird": (dict(name="bigbird", heads=2, block=2, random=1), bigbird.run, dict(heads=2, block=2, random=1)),
  "bigbird, wide window": (
    dict(name="bigbird", heads=4, block=1, window=5, random=2, bias=True, max_len=20),
    bigbird.run,
    dict(heads=4, block=1, window=5, random=2),
  ),
  "fnet": (dict(name="fnet"), fnet.run, {}),
  "linear_transformer": (dict(name="linear_transformer", heads=2), linear_transformer.run, dict(heads=2)),
  "linear_transformer, full": (
    dict(name="linear_transformer", heads=4, mask="full", eps=0.1, bias=True),
    linear_transformer.run,
    dict(heads=4, mask="full", eps=0.1),
  ),
  "linformer": (dict(name="linformer", heads=2, rank=3, max_len=20), linformer.run, dict(heads=2)),
  "linformer, two mixtures": (
    dict(name="linformer", heads=1, rank=5, max_len=14, shared=False, bias=True),
    linformer.run,
    dict(heads=1),
  ),
  "local": (
    dict(name="local", heads=2, window=5),
    softmax.run,
    dict(heads=2, kv_heads=1, position="rope", turned=2, window=5),
  ),
  "luna": (dict(name="luna", heads=2, packed=3), luna.run, dict(heads=2)),
  "luna, tied": (
    dict(name="luna", heads=4, packed=2, tied=True, bias=False),
    luna.run,
    dict(heads=4, tied=True),
  ),
  "mla": (
    dict(name="mla", heads=2, rank=5, q_rank=6, head_size=3, rope_size=4, value_size=5),
    mla.run,
    dict(heads=2, head_size=3),
  ),
  "mla, queries not compressed": (
    dict(name="mla", heads=3, rank=4, head_size=2, rope_size=6, value_size=3, layout="half", theta=50.0),
    mla.run,
    dict(heads=3, head_size=2, layout="half", theta=50.0),
  ),
  "mla, without positions": (
    dict(name="mla", heads=2, rank=4, head_size=4, rope_size=3, value_size=3, position="none"),
    mla.run,
    dict(heads=2, head_size=4, position="none"),
  ),
  "nystromformer": (
    dict(name="nystromformer", heads=2, landmarks=3, taps=5),
    nystromformer.run,
    dict(heads=2, landmarks=3),
  ),
  "nystromformer, no convolution": (
    dict(name="nystromformer", heads=4, landmarks=4, taps=0, iterations=2, bias=True),
    nystromformer.run,
    dict(heads=4, landmarks=4, iterations=2),
  ),
  "performer": (dict(name="performer", heads=2, features=5), performer.run, dict(heads=2)),
  "performer, full": (
    dict(name="performer", heads=4, features=3, mask="full", eps=0.1),
    performer.run,
    dict(heads=4, mask="full", eps=0.1),
  ),
  "performer, large eps": (
    dict(name="performer", heads=2, features=3, eps=0.1, bias=True),
    performer.run,
    dict(heads=2, eps=0.1),
  ),
  "performer, relu": (
    dict(name="performer", heads=2, features=9, kernel="relu"),
    performer.run,
    dict(heads=2, kernel="relu"),
  ),
  "reformer": (dict(name="reformer", heads=2, buckets=4, rounds=2, chunk=3), reformer.run, dict(heads=2, chunk=3)),
  "reformer, one round": (
    dict(name="reformer", heads=4, buckets=2, chunk=4, bias=True),
    reformer.run,
    dict(heads=4, chunk=4),
  ),
  "softmax": (dict(name="softmax", heads=2), softmax.run, dict(heads=2)),
  "softmax, alibi": (
    dict(name="softmax", heads=4, kv_heads=2, head_size=3, position="alibi", softcap=1.5, gate=True),
    softmax.run,
    dict(heads=4, kv_heads=2, size=3, position="alibi", softcap=1.5),
  ),
  "softmax, alibi both ways": (
    dict(name="softmax", heads=3, head_size=2, mask="full", position="alibi", bias="out"),
    softmax.run,
    dict(heads=3, size=2, mask="full", position="alibi"),
  ),
  "softmax, full": (
    dict(name="softmax", heads=2, mask="full", position="rope"),
    softmax.run,
    dict(heads=2, mask="full", position="rope"),
  ),
  "softmax, window": (
    dict(name="softmax", heads=4, kv_heads=2, window=5, position="rope", theta=50.0, bias="all"),
    softmax.run,
    dict(heads=4, kv_heads=2, window=5, position="rope", theta=50.0),
  ),
  "softmax, interpolated": (
    dict(name="softmax", heads=1, position="rope", scaling=dict(rule="linear", factor=3.0)),
    softmax.run,
    dict(heads=1, position="rope", scaling=dict(rule="linear", factor=3.0)),
  ),
  "softmax, ntk": (
    dict(name="softmax", heads=1, position="rope", scaling=dict(rule="ntk", factor=8.0), qk_norm="all"),
    softmax.run,
    dict(heads=1, position="rope", scaling=dict(rule="ntk", factor=8.0), qk_norm="all"),
  ),
  "softmax, persistent": (
    dict(name="softmax", heads=4, kv_heads=2, window=4, persistent=3, position="rope", qk_norm="head", gate=True),
    softmax.run,
    dict(heads=4, kv_heads=2, window=4, persistent=3, position="rope", qk_norm="head"),
  ),
  "softmax, xpos": (
    dict(name="softmax", heads=2, head_size=8, position="xpos", rotary=0.5, layout="interleaved", qk_norm="head"),
    softmax.run,
    dict(heads=2, size=8, position="xpos", turned=4, layout="interleaved", qk_norm="head"),
  ),
  "softmax, yarn": (
    dict(name="softmax", heads=2, head_size=32, position="rope", bias="qkv", scaling=YARN),
    softmax.run,
    dict(heads=2, size=32, position="rope", scaling=YARN),
  ),
  "softmax, yarn of half a head": (
    dict(name="softmax", heads=2, head_size=32, position="rope", rotary=0.5, scaling=YARN),
    softmax.run,
    dict(heads=2, size=32, position="rope", turned=16, scaling=YARN),
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
