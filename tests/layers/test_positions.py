"""Rotary positions and their scaling, xPos, ALiBi, sinusoids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.positions import LAYOUTS, alibi_slopes, rope, sinusoidal, xpos_decays
from layers.rope_scaling import amplitude, fixed, frequencies
from tests.refused import refused

Q, K = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))


def score(q_position, k_position, layout):
  turn = lambda x, position: rope(x, jnp.array([[position]]), layout=layout, theta=100.0)
  return float(jnp.sum(turn(Q, q_position) * turn(K, k_position)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_depend_on_the_difference_of_positions(layout):
  np.testing.assert_allclose(score(1007, 1002, layout), score(5, 0, layout), rtol=1e-4)
  np.testing.assert_allclose(score(5, 5, layout), float(jnp.sum(Q * K)), rtol=1e-5)
  assert abs(score(5, 0, layout) - score(6, 0, layout)) > 1e-3
  assert abs(score(5, 0, layout) - score(0, 5, layout)) > 1e-3


def test_layouts_differ_by_a_permutation():
  interleaved = [0, 4, 1, 5, 2, 6, 3, 7]
  positions = jnp.array([[3]])
  half = rope(Q, positions, layout="half")[..., interleaved]
  np.testing.assert_allclose(rope(Q[..., interleaved], positions, layout="interleaved"), half, rtol=1e-6)


def test_first_pair_turns_by_the_position_itself():
  turned = rope(jnp.eye(4)[:1].reshape(1, 1, 1, 4), jnp.array([[2]]), layout="interleaved")
  np.testing.assert_allclose(turned[0, 0, 0], [np.cos(2), np.sin(2), 0, 0], atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_entries_beyond_the_share_stay(layout):
  positions = jnp.array([[3]])
  part = rope(Q, positions, layout=layout, share=0.5)
  np.testing.assert_array_equal(part[..., 4:], Q[..., 4:])
  np.testing.assert_array_equal(part[..., :4], rope(Q[..., :4], positions, layout=layout))


def test_interpolated_positions_are_those_of_a_shorter_sequence():
  """Every fourth token of a sequence four times as long turns as it did in training."""
  positions = jnp.arange(5)[None] * jnp.ones((1, 1), int)
  x = jnp.broadcast_to(Q, (1, 5, 1, 8))
  long = rope(x, 4 * positions, scaling=dict(rule="linear", factor=4.0))
  np.testing.assert_allclose(long, rope(x, positions), rtol=1e-5, atol=1e-6)


def test_ntk_keeps_the_first_pair_and_interpolates_the_last():
  plain, scaled = frequencies(16, 1e4), frequencies(16, 1e4, dict(rule="ntk", factor=4.0))
  np.testing.assert_allclose(scaled[[0, -1]], [plain[0], plain[-1] / 4], rtol=1e-12)
  assert (np.diff(plain / scaled) > 0).all()


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones():
  scaling = dict(rule="yarn", factor=4.0, trained=512)
  plain, scaled = frequencies(64, 1e4), frequencies(64, 1e4, scaling)
  turns = 512 * plain / (2 * np.pi)
  np.testing.assert_allclose(scaled[turns > 40], plain[turns > 40], rtol=1e-12)
  np.testing.assert_allclose(scaled[turns < 0.7], plain[turns < 0.7] / 4, rtol=1e-12)
  assert ((scaled < plain) & (scaled > plain / 4)).any()
  np.testing.assert_allclose(amplitude(scaling), 0.1 * np.log(4) + 1)
  assert amplitude(None) == amplitude(dict(rule="linear", factor=4.0)) == 1


def test_llama3_keeps_fast_pairs_and_interpolates_slow_ones():
  """Between one and four turns in 512 positions the share that is kept rises with their number."""
  plain, scaled = frequencies(64, 1e4), frequencies(64, 1e4, dict(rule="llama3", factor=8.0, trained=512))
  turns = 512 * plain / (2 * np.pi)
  for chosen, want in ((turns >= 4, 1.0), (turns <= 1, 1 / 8)):
    assert chosen.any()
    np.testing.assert_allclose(scaled[chosen], plain[chosen] * want, rtol=1e-12)
  (between,) = np.nonzero((turns > 1) & (turns < 4))
  share = (turns[between] - 1) / 3
  np.testing.assert_allclose(scaled[between], (1 - share) * plain[between] / 8 + share * plain[between], rtol=1e-12)


def test_proportional_pairs_turn_as_in_a_whole_head_or_not_at_all():
  plain, scaled = frequencies(16, 1e4), frequencies(16, 1e4, dict(rule="proportional", share=0.45))
  np.testing.assert_allclose(scaled, [*plain[:3], *[0] * 5])
  np.testing.assert_allclose(frequencies(8, 1e4, dict(rule="proportional", share=1.0, factor=2.0)), plain[::2] / 2)


def test_dynamic_is_ntk_for_what_a_length_needs():
  rule = lambda length: frequencies(16, 1e4, dict(rule="dynamic", factor=2.0, trained=100, length=length))
  np.testing.assert_allclose(rule(80), frequencies(16, 1e4))
  np.testing.assert_allclose(rule(300), frequencies(16, 1e4, dict(rule="ntk", factor=5.0)))


def test_longrope_divides_each_pair_by_a_number_of_its_own():
  scaling = dict(rule="longrope", divisors=(1.0, 2.0, 4.0, 8.0), factor=4.0, trained=1024)
  np.testing.assert_allclose(frequencies(8, 1e4, scaling), frequencies(8, 1e4) / [1, 2, 4, 8])
  np.testing.assert_allclose(amplitude(scaling), np.sqrt(1 + np.log(4) / np.log(1024)))
  assert amplitude(scaling | {"amplitude": 1.25}) == 1.25
  assert hash(fixed(scaling | {"divisors": [1.0]})) == hash(fixed(scaling | {"divisors": (1.0,)}))
  refused("4 divisors for 8 pairs", frequencies, 16, 1e4, scaling)


def test_yarns_amplitude_has_a_second_scale_or_is_given():
  scaling = dict(rule="yarn", factor=4.0, trained=512, mscale=0.7)
  np.testing.assert_allclose(
    amplitude(scaling | {"mscale_all_dim": 0.5}), (1 + 0.07 * np.log(4)) / (1 + 0.05 * np.log(4))
  )
  assert amplitude(scaling | {"mscale_all_dim": 0.7}) == 1
  assert amplitude(scaling | {"amplitude": 1.5}) == 1.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_xpos_is_the_products_of_two_scaled_vectors(layout):
  """As published: queries times zeta^(n/512), keys times zeta^(-n/512)."""
  zeta = (np.arange(0, 8, 2) + 0.4 * 8) / (1.4 * 8)
  scale = np.tile(zeta, 2) if layout == "half" else np.repeat(zeta, 2)
  q, k = np.asarray(Q).ravel(), np.asarray(K).ravel()
  theirs = (q * scale ** (700 / 512)) @ (k * scale ** (-300 / 512))
  np.testing.assert_allclose((q * k) @ np.exp(400 * np.array(xpos_decays(8, layout=layout))), theirs, rtol=1e-5)
  assert xpos_decays(8, share=0.5) == (*xpos_decays(4), 0, 0, 0, 0)


def test_alibi_slopes():
  assert alibi_slopes(1) == (2.0**-8,)
  assert alibi_slopes(8) == tuple(2.0**-i for i in range(1, 9))
  assert alibi_slopes(6) == (2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3)


@pytest.mark.parametrize(
  "scaling, reason",
  [
    (dict(factor=2.0), r"no rule None; choose from \['linear', 'ntk', .*'yarn'\]"),
    (dict(rule="lin", factor=2.0), "no rule 'lin'; choose from"),
    (dict(rule="yarn", factor=2.0), r"'yarn' takes .* and needs \['factor', 'trained'\], not {'factor': 2.0}"),
    (dict(rule="linear", factor=2.0, trained=3), r"'linear' takes \['factor'\]"),
    (dict(rule="linear", factor=0), "factor=0; it must be a number above 0"),
    (dict(rule="linear", factor="4"), "factor='4'; it must be a number above 0"),
    (dict(rule="llama3", factor=2.0, trained=64, low=4.0), "low=4.0, high=4.0; it needs low < high"),
    (dict(rule="longrope", divisors=(1.0, 0.0), factor=2.0, trained=64), "must be numbers above 0"),
    (dict(rule="yarn", factor=2.0, trained=None), "trained=None; it must be a number above 0"),
  ],
)
def test_bad_scalings_are_named(scaling, reason):
  refused(reason, frequencies, 8, 1e4, scaling)


@pytest.mark.parametrize("theta", [1.0, 0.5])
def test_yarn_needs_pairs_of_different_speeds(theta):
  with pytest.raises(ValueError, match=f"'yarn' with theta={theta}; it must be above 1"):
    frequencies(8, theta, dict(rule="yarn", factor=2.0, trained=64))


def test_rope_keeps_the_dtype():
  assert rope(Q.astype(jnp.bfloat16), jnp.array([[3]])).dtype == jnp.bfloat16


FAR = np.array([0, 1, 4097, 262_144, 16_777_216, 16_777_217, 2**31 - 1, -1, -(2**31)], np.int32)
SCALINGS = [
  None,
  dict(rule="linear", factor=4.0),
  dict(rule="ntk", factor=8.0),
  dict(rule="yarn", factor=4.0, trained=2048),
]


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_rotations_are_exact_at_every_position(scaling, theta):
  """Values and gradients to 1e-5 of float64, where angles in float32 are off by 1e-3 at 262,144 already."""
  x, slope = np.random.default_rng(0).standard_normal((2, 1, FAR.size, 1, 64))
  turn = np.exp(1j * FAR[:, None].astype(np.float64) * frequencies(64, theta, scaling))
  pairs = lambda z: z[0, :, 0, :32] + 1j * z[0, :, 0, 32:]
  run = lambda x: rope(x, jnp.asarray(FAR[None]), theta=theta, scaling=scaling)
  y, back = jax.vjp(jax.jit(run), jnp.asarray(x, jnp.float32))
  (dx,) = back(jnp.asarray(slope, jnp.float32))
  np.testing.assert_allclose(pairs(np.asarray(y)), pairs(x) * turn, atol=1e-5)
  np.testing.assert_allclose(pairs(np.asarray(dx)), pairs(slope) * turn.conj(), atol=1e-5)


def test_sinusoids_are_exact_at_every_position():
  angles = FAR[:, None].astype(np.float64) * frequencies(64, 1e4)
  vectors = jax.jit(lambda p: sinusoidal(p, 64))(FAR)
  np.testing.assert_allclose(vectors[:, 0::2], np.sin(angles), atol=1e-5)
  np.testing.assert_allclose(vectors[:, 1::2], np.cos(angles), atol=1e-5)


def test_sinusoidal_pairs():
  vectors = sinusoidal(jnp.array([[0, 1, 7]]), 6)
  assert vectors.shape == (1, 3, 6)
  np.testing.assert_allclose(vectors[0, 0], [0, 1, 0, 1, 0, 1])
  slow = 7 * 1e4 ** (-2 / 6)
  np.testing.assert_allclose(vectors[0, 2, :4], [np.sin(7), np.cos(7), np.sin(slow), np.cos(slow)], rtol=1e-5)


def test_bad_sizes_and_layouts_are_named():
  with pytest.raises(ValueError, match="3 entries of heads of size 3 cannot be turned in pairs"):
    rope(jnp.zeros((1, 1, 1, 3)), jnp.zeros((1, 1), int))
  refused(r"no layout 'full'; choose from \['half', 'interleaved'\]", rope, Q, jnp.zeros((1, 1), int), layout="full")
  refused("width=5 is odd", sinusoidal, jnp.zeros((2,), int), 5)
