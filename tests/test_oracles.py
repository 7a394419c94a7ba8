"""Every mixer computes what its paper says: as an independent NumPy transcription does, in float64, to 1e-9."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from tests.contract.case import LENGTHS, Case, resets
from tests.oracles import (
  based,
  delta_net,
  dss,
  event_ssm,
  gated_conv,
  gated_delta_net,
  gla,
  gru,
  gss,
  h3,
  hgrn2,
  hyena,
  kda,
  lightning,
  liquid_s4,
  lru,
  lssl,
  lstm,
  mamba,
  mamba2,
  mamba3,
  mega,
  min_gru,
  mlstm,
  retnet,
  mla,
  rglru,
  rnn,
  rwkv4,
  rwkv6,
  rwkv7,
  rwkv_channel,
  s4,
  s4d,
  s4nd,
  s5,
  sgconv,
  slstm,
  softmax,
  ssm2d,
)

D = 8
GAPS = {"dt": lambda b, t: 0.1 + np.random.default_rng(0).exponential(size=(b, t))}
FIRST = {"v_first": lambda b, t: np.random.default_rng(0).standard_normal((b, t, D))}
SIDE = {"gaps": GAPS, "v_first": FIRST}  # by what the name of a case contains
YARN = dict(rule="yarn", factor=4.0, trained=300)
RANKS = dict(w_rank=2, a_rank=3, v_rank=2, g_rank=40)  # the last: outputs that are not all small

# what is built -> the oracle and what it must be told
CASES = {
  "based": (dict(name="based", heads=2, key_size=3), based.run, dict(heads=2)),
  "based, one channel a head": (dict(name="based", key_size=4), based.run, dict(heads=8)),
  "delta_net": (dict(name="delta_net", heads=2), delta_net.run, dict(heads=2)),
  "delta_net, negative eigenvalues": (
    dict(name="delta_net", heads=2, expand_k=0.5, expand_v=2.0, taps=2, negative_eigenvalues=True),
    delta_net.run,
    dict(heads=2, beta_most=2),
  ),
  "dss": (dict(name="dss", state=3), dss.run, {}),
  "dss, softmax": (dict(name="dss", state=3, kernel="softmax", max_len=30), dss.run, dict(max_len=30)),
  "event_ssm, gaps": (dict(name="event_ssm", state=8), event_ssm.run, {}),
  "event_ssm, gaps, dirac": (dict(name="event_ssm", state=8, disc="dirac"), event_ssm.run, dict(disc="dirac")),
  "event_ssm, gaps, zoh": (
    dict(name="event_ssm", state=6, disc="zoh", activation="none"),
    event_ssm.run,
    dict(disc="zoh", activation="none"),
  ),
  "gated_conv": (dict(name="gated_conv"), gated_conv.run, {}),
  "gated_conv, biases": (dict(name="gated_conv", taps=4, bias=True), gated_conv.run, {}),
  "gated_delta_net": (dict(name="gated_delta_net", heads=2), gated_delta_net.run, dict(key_heads=2)),
  "gated_delta_net, shared keys": (
    dict(name="gated_delta_net", heads=2, value_heads=4, head_size=2, taps=3, negative_eigenvalues=True),
    gated_delta_net.run,
    dict(key_heads=2, beta_most=2),
  ),
  "gla": (dict(name="gla", heads=2, gate_rank=3), gla.run, dict(heads=2)),
  "gla, wide": (dict(name="gla", heads=4, expand_k=1.0, expand_v=1.5, tau=2.0), gla.run, dict(heads=4, tau=2.0)),
  "gru": (dict(name="gru"), gru.run, {}),
  "gru, after": (dict(name="gru", reset_gate="after"), gru.run, dict(reset_gate="after")),
  "gss": (dict(name="gss", inner=3, outer=12, state=4), gss.run, {}),
  "h3": (dict(name="h3", state=4), h3.run, {}),
  "h3, heads": (dict(name="h3", state=4, head_dim=4, disc="zoh"), h3.run, dict(head_dim=4, disc="zoh")),
  "hgrn2": (dict(name="hgrn2", head_size=4), hgrn2.run, dict(heads=2)),
  "hgrn2, second layer": (dict(name="hgrn2", layer=1, depth=3), hgrn2.run, dict(heads=1)),
  "hyena": (dict(name="hyena", max_len=30, filter_width=5), hyena.run, dict(max_len=30)),
  "hyena, heads": (
    dict(name="hyena", order=3, heads=2, outer_mixing=True, max_len=30, filter_width=5),
    hyena.run,
    dict(order=3, heads=2, outer_mixing=True, max_len=30),
  ),
  "hyena, third order": (
    dict(
      name="hyena",
      order=3,
      max_len=40,
      filter_width=4,
      filter_depth=1,
      features=7,
      frequency=10.0,
      share_frequency=False,
      taps=2,
      shift=0.1,
    ),
    hyena.run,
    dict(order=3, max_len=40, shift=0.1),
  ),
  "kda": (dict(name="kda", heads=2), kda.run, {}),
  "kda, negative eigenvalues": (
    dict(name="kda", heads=2, head_size=3, expand_v=2.0, taps=2, negative_eigenvalues=True, gate_bias=True),
    kda.run,
    dict(beta_most=2),
  ),
  "lightning": (dict(name="lightning", head_size=4), lightning.run, dict(heads=2, left=1 + 1e-5)),
  "lightning, third of five": (
    dict(name="lightning", heads=3, head_size=2, layer=2, depth=5),
    lightning.run,
    dict(heads=3, left=1 - 2 / (4 + 1e-5) + 1e-5),
  ),
  "liquid_s4": (dict(name="liquid_s4", state=6, degree=3), liquid_s4.run, dict(degree=3)),
  "liquid_s4, kb": (dict(name="liquid_s4", state=6, degree=3, kernel="kb"), liquid_s4.run, dict(degree=3, kernel="kb")),
  "liquid_s4, official": (
    dict(name="liquid_s4", state=4, degree=4, form="official"),
    liquid_s4.run,
    dict(degree=4, form="official"),
  ),
  "local": (
    dict(name="local", heads=2, window=5),
    softmax.run,
    dict(heads=2, kv_heads=1, position="rope", turned=2, window=5),
  ),
  "lru": (dict(name="lru", state=6), lru.run, {}),
  "lru, plain": (dict(name="lru", state=5, activation="none"), lru.run, dict(activation="none")),
  "lssl": (dict(name="lssl", state=4), lssl.run, {}),
  "lssl, its output alone learned": (
    dict(name="lssl", state=2, A_init="legt", learn="output", alpha=1.0),
    lssl.run,
    dict(
      alpha=1.0,
      A=np.array([[-0.5, 3**0.5 / 2], [-(3**0.5) / 2, -1.5]]),
      B=np.array([0.5, 3**0.5 / 2]),
      dt=10 ** np.linspace(-3, -1, D),
    ),
  ),
  "lstm": (dict(name="lstm"), lstm.run, {}),
  "mamba": (dict(name="mamba", state=4, dt_rank=2), mamba.run, {}),
  "mamba, biases": (dict(name="mamba", state=3, taps=2, expand=1, bias=True, conv_bias=False), mamba.run, {}),
  "mamba, complex": (
    dict(name="mamba", state=4, spectrum="complex", disc="zoh", groups=2, norms="learned"),
    mamba.run,
    dict(disc="zoh", groups=2, norms="learned"),
  ),
  "mamba, weightless": (
    dict(name="mamba", state=3, disc="zoh", norms="weightless"),
    mamba.run,
    dict(disc="zoh", norms="weightless"),
  ),
  "mamba2": (dict(name="mamba2", state=4, head_size=4), mamba2.run, dict(state=4)),
  "mamba2, groups": (
    dict(name="mamba2", state=3, head_size=2, groups=2, norm="norm_first", D_per="channel", bias=True, conv_bias=False),
    mamba2.run,
    dict(state=3, groups=2, norm="norm_first", norm_groups=2),
  ),
  "mamba2, beside an MLP": (
    dict(name="mamba2", state=3, expand=3, ssm_width=8, head_size=2, bias=True),
    mamba2.run,
    dict(state=3, ssm_width=8),
  ),
  "mamba2, no norm": (
    dict(name="mamba2", state=3, taps=2, expand=3, norm="none", dt_least=0.01, dt_most=0.05),
    mamba2.run,
    dict(state=3, norm="none", dt_limit=(0.01, 0.05)),
  ),
  "mamba3": (dict(name="mamba3", state=6, head_size=4), mamba3.run, dict(state=6, pairs=1)),
  "mamba3, MIMO": (
    dict(name="mamba3", state=4, head_size=4, rank=3),
    mamba3.run,
    dict(state=4, rank=3, pairs=1),
  ),
  "mamba3, MIMO with a norm": (
    dict(name="mamba3", state=4, head_size=8, groups=2, rank=2, out_norm=True),
    mamba3.run,
    dict(state=4, groups=2, rank=2, pairs=1, out_norm=True),
  ),
  "mamba3, groups": (
    dict(name="mamba3", state=4, head_size=2, groups=2, rope_fraction=1.0, A_activation="softplus", out_norm=True),
    mamba3.run,
    dict(state=4, groups=2, pairs=2, A="softplus", out_norm=True),
  ),
  "mega": (dict(name="mega", state=2, keys=4, chunk=5), mega.run, dict(chunk=5)),
  "mega, no chunks": (dict(name="mega", state=1, keys=4, chunk=None), mega.run, dict(chunk=100)),
  "mega, simple": (
    dict(name="mega", state=3, keys=3, inner=6, chunk=4, position="simple"),
    mega.run,
    dict(chunk=4, position="simple"),
  ),
  "mega, both ways": (
    dict(name="mega", state=2, keys=4, chunk=5, bidirectional=True),
    mega.run,
    dict(chunk=5, bidirectional=True),
  ),
  "mega, both ways, laplace": (
    dict(name="mega", state=2, keys=3, chunk=4, position="simple", weights="laplace", bidirectional=True),
    mega.run,
    dict(chunk=4, position="simple", weights="laplace", bidirectional=True),
  ),
  "mega, relu2": (
    dict(name="mega", state=2, keys=4, chunk=None, weights="relu2"),
    mega.run,
    dict(chunk=100, weights="relu2"),
  ),
  "min_gru": (dict(name="min_gru", expand=2), min_gru.run, {}),
  "min_gru, positive": (dict(name="min_gru", candidate="positive"), min_gru.run, dict(candidate="positive")),
  "mlstm": (dict(name="mlstm", heads=2), mlstm.run, dict(heads=2)),
  "mlstm, without eps": (
    dict(name="mlstm", expand=1.5, heads=3, block_size=2, taps=2, eps=0.0),
    mlstm.run,
    dict(heads=3, eps=0),
  ),
  "retnet": (dict(name="retnet", heads=2), retnet.run, dict(heads=2)),
  "retnet, wide": (
    dict(name="retnet", heads=4, expand_v=1.5, norm_eps=1e-2),
    retnet.run,
    dict(heads=4, eps=1e-2),
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
  "rglru": (dict(name="rglru", inner=12, heads=3), rglru.run, {}),
  "rnn": (dict(name="rnn"), rnn.run, {}),
  "rnn, relu": (dict(name="rnn", activation="relu"), rnn.run, dict(activation="relu")),
  "rwkv4": (dict(name="rwkv4"), rwkv4.run, {}),
  "rwkv4, last layer": (dict(name="rwkv4", layer=2, depth=3), rwkv4.run, {}),
  "rwkv6": (dict(name="rwkv6", head_size=4, mix_rank=2, decay_rank=3), rwkv6.run, dict(heads=2)),
  "rwkv6, last layer": (dict(name="rwkv6", layer=2, depth=3), rwkv6.run, dict(heads=1)),
  "rwkv7": (dict(name="rwkv7", head_size=4, **RANKS), rwkv7.run, dict(heads=2)),
  "rwkv7, v_first": (
    dict(name="rwkv7", head_size=2, layer=2, depth=5, **RANKS),
    rwkv7.run,
    dict(heads=4),
  ),
  "rwkv_channel": (dict(name="rwkv_channel", layer=1, depth=3), rwkv_channel.run, {}),
  "rwkv_channel, with receptance": (dict(name="rwkv_channel", version=6), rwkv_channel.run, dict(receptance=True)),
  "s4": (dict(name="s4", state=6), s4.run, {}),
  "s4, fout and shared": (
    dict(name="s4", state=4, A_init="fout", copies=2, activation="gelu"),
    s4.run,
    dict(activation="gelu"),
  ),
  "s4d": (dict(name="s4d", state=6), s4d.run, {}),
  "s4d, bilinear and shared": (
    dict(name="s4d", state=6, A_init="inv", disc="bilinear", copies=2),
    s4d.run,
    dict(disc="bilinear"),
  ),
  "s4d, real": (
    dict(name="s4d", state=4, A_init="real", activation="none"),
    s4d.run,
    dict(activation="none"),
  ),
  "s4nd": (dict(name="s4nd", state=4, rank=2), s4nd.run, dict(sizes=(2, 7))),
  "s4nd, DPLR": (
    dict(name="s4nd", state=4, rank=2, structure="dplr", A_init="fout"),
    s4nd.run,
    dict(sizes=(2, 7)),
  ),
  "s4nd, video": (dict(name="s4nd", state=4, dim=3), s4nd.run, dict(sizes=(2, 1, 7))),
  "s4nd, tall": (
    dict(name="s4nd", state=2, columns=1, disc="bilinear"),
    s4nd.run,
    dict(sizes=(14, 1), disc="bilinear"),
  ),
  "s5": (dict(name="s5", state=8, blocks=2), s5.run, {}),
  "s5, both ways": (dict(name="s5", state=8, bidirectional=True), s5.run, dict(bidirectional=True)),
  "s5, both ways, gaps, without pairs": (
    dict(name="s5", state=3, bidirectional=True, conj_sym=False, C_init="complex_normal", activation="none"),
    s5.run,
    dict(bidirectional=True, conj_sym=False, activation="none"),
  ),
  "s5, bilinear without pairs": (
    dict(name="s5", state=6, disc="bilinear", conj_sym=False, activation="full_glu"),
    s5.run,
    dict(disc="bilinear", conj_sym=False, activation="full_glu"),
  ),
  "s5, gaps": (dict(name="s5", state=8, step_rescale=2.0), s5.run, dict(step_rescale=2.0)),
  "s5, half_glu2": (dict(name="s5", state=6, activation="half_glu2"), s5.run, dict(activation="half_glu2")),
  "sgconv": (dict(name="sgconv", taps=3, max_len=40), sgconv.run, {}),
  "sgconv, learned": (
    dict(name="sgconv", taps=4, max_len=28, decay="learned", decay_min=0.5, activation="none"),
    sgconv.run,
    dict(learned=True, activation="none"),
  ),
  "sgconv, sum": (
    dict(name="sgconv", taps=3, max_len=30, join="sum", interpolation="nearest", decay_min=1.5, activation="gelu"),
    sgconv.run,
    dict(join="sum", interpolation="nearest", decay_min=1.5, activation="gelu"),
  ),
  "slstm": (dict(name="slstm", heads=2), slstm.run, {}),
  "slstm, exp": (dict(name="slstm", heads=4, forget="exp", taps=2), slstm.run, dict(forget="exp")),
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
  "ssm2d": (dict(name="ssm2d", state=2), ssm2d.run, dict(columns=7)),
  "ssm2d, as printed": (
    dict(name="ssm2d", state=3, directions=2, inside=1.0),
    ssm2d.run,
    dict(columns=7, inside=1),
  ),
  "ssm2d, complex and shared": (
    dict(name="ssm2d", state=2, directions=1, numbers="complex", copies=2),
    ssm2d.run,
    dict(columns=7),
  ),
}


PACKED = dict(reset=resets(), lengths=LENGTHS)


@functools.lru_cache(maxsize=1)
def case_and_oracle(name):
  """A mixer at perturbed parameters in float64, and its oracle, which takes x and the packing."""
  kwargs, oracle, told = CASES[name]
  case = Case(build(**kwargs, width=D), side=next((SIDE[key] for key in SIDE if key in name), None), dtype=jnp.float64)
  # what a mixer keeps besides its parameters has a name of its own
  kept = {name: value for collection in case.variables.values() for name, value in collection.items()}
  flat = flax.traverse_util.flatten_dict(kept, sep="/")
  p = {path: np.asarray(value) for path, value in flat.items()}
  assert {value.dtype for value in p.values()} == {np.dtype("float64")}
  return case, functools.partial(oracle, p, **told, **(case.tokens.side or {}))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_papers_equations(name):
  """Rows of every packing and length, the plain one among them."""
  with jax.enable_x64(True):
    case, oracle = case_and_oracle(name)
    assert_equal(case.call(case.tokens.poisoned(LENGTHS), **PACKED), oracle(case.tokens.x, **PACKED))


@pytest.mark.parametrize(
  "name", ["dss, softmax", "mega", "mega, simple", "mla", "s4", "s4d", "sgconv", "softmax, window", "softmax, xpos"]
)
def test_other_ways_equal_the_papers_equations(name):
  """Where __call__ is more than a prefill: the resumable form, and the plain one without documents."""
  with jax.enable_x64(True):
    case, oracle = case_and_oracle(name)
    assert_equal(case.prefill(case.tokens, case.init_state(), **PACKED)[0], oracle(case.tokens.x, **PACKED))
    assert_equal(case.call(case.tokens), oracle(case.tokens.x))


def assert_equal(actual, expected):
  assert actual.dtype == np.float64
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
