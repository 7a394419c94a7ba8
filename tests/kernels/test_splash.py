"""`attention` by JAX's kernels for TPUs, without one: interpreted here, lowered in lower_for_tpu.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention import attention, splash
from tests.kernels.compare import TOLERANCE, assert_close, draw, values_and_gradients

B, H, G, K, P = 2, 4, 2, 16, 8


@pytest.fixture
def on_tpu(monkeypatch):
  """What chooses by platform sees a TPU; the kernels run in Pallas's plain interpreter.

  That of a TPU fails on kernels under `vmap` (JAX 0.10.2 to 0.12).
  """
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  make = functools.partial(splash.splash.make_splash_mha_single_device, interpret=True)
  monkeypatch.setattr(splash.splash, "make_splash_mha_single_device", make)


def arrays(t):
  rng = np.random.default_rng(t)
  return draw(rng, (B, t, H, K), np.float32), draw(rng, (B, t, G, K), np.float32), draw(rng, (B, t, G, P), np.float32)


def run(impl, given, segment=None, **settings):
  op = lambda q, k, v: (attention(q, k, v, q_segment=segment, k_segment=segment, impl=impl, **settings),)
  return values_and_gradients(op, given)


@pytest.mark.parametrize("t, settings", [(130, {"window": 70}), (128, {"softcap": 2.0, "scale": 0.7})])
def test_it_equals_the_reference(on_tpu, t, settings):
  assert_close(run("splash", arrays(t), **settings), run("reference", arrays(t), **settings), TOLERANCE["float32"])


@pytest.mark.parametrize("mask", ["causal", "full"])
def test_documents_do_not_see_each_other_and_empty_slots_are_not_read(on_tpu, mask):
  t = 100
  segment = jnp.stack([jnp.arange(t) // 40, jnp.where(jnp.arange(t) < 90, 0, -1)])
  given = [np.where(np.asarray(segment >= 0)[..., None, None], z, np.nan) for z in arrays(t)]
  got, want = (run(impl, given, segment, mask=mask) for impl in ("splash", "reference"))
  assert_close(got, want, TOLERANCE["float32"])
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(got))


def test_what_fills_up_lanes_is_not_seen(on_tpu):
  assert_close(run("splash", arrays(30), mask="full"), run("reference", arrays(30), mask="full"), TOLERANCE["float32"])


def test_a_tpu_takes_it_by_itself_and_what_it_cannot_do_is_said(on_tpu):
  given = [jnp.asarray(z) for z in arrays(128)]
  jaxpr = lambda *args, **settings: str(jax.make_jaxpr(functools.partial(attention, **settings))(*args))
  assert "splash" in jaxpr(*given)
  q, k, v = given
  places, other = jnp.zeros((B, 128), int), jnp.ones((B, 128), int)
  for args, settings, reason in (
    ((q[:, :7], k, v), {}, "as many queries as keys, and some, not 7 and 128"),
    (given, {"q_position": places, "k_position": places}, "no places"),
    (given, {"q_segment": places, "k_segment": other}, "the same segments, one array"),
    (given, {"window": 7, "mask": "full"}, "its window needs mask='causal'"),
    (given, {"weights": "relu2"}, "no weights 'relu2'"),
    (given, {"slopes": (1.0,) * H}, "no slopes"),
    (given, {"decays": (-1.0,) * K}, "no decays"),
  ):
    assert "splash" not in jaxpr(*args, **settings)
    with pytest.raises(ValueError, match=reason):
      attention(*args, **settings, impl="splash")


def test_a_cpu_is_not_asked_for_it():
  with pytest.raises(ValueError, match=r"cannot run on cpu \(splash: it needs a TPU, not a cpu"):
    attention(*map(jnp.asarray, arrays(6)), impl="splash")
