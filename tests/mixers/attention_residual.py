"""AttentionResidual: small sizes, parameter count, oracle, refusals; and stacks of such layers, full and by blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from hybrids.body.attended_stack import AttendedStack
from tests import mixers
from tests.hybrids.filled import filled
from tests.oracles import attention_residual as oracle
from tests.refused import refused

MLP = dict(name="mlp", inner=3, activation="silu")


def after(count, depth):
  """A side input that says that so many layers are done."""
  return {"layers_done": lambda b, t: np.broadcast_to(np.arange(depth) < count, (b, t, depth)).astype(float)}


SMALL = {
  "": dict(mixer=dict(name="min_gru")),
  "blocks": dict(depth=5, block=2, mixer=dict(name="min_gru")),
}
# depth and block are arguments of the oracle
ORACLE = {
  "full": dict(depth=3, block=1, mixer=MLP),
  "a block's first layer": dict(depth=6, block=2, mixer=MLP),
  "a block's second layer": dict(depth=5, block=2, mixer=MLP),
}
SIDE = {
  "blocks": after(3, 5),
  "full": after(2, 3),
  "a block's first layer": after(2, 6),
  "a block's second layer": after(3, 5),
}
REFUSED = [
  (dict(mixer=MLP, depth=2), "streams=3 do not divide width=8"),
  (dict(mixer=MLP, block=0), "block=0; it must be at least 1"),
  (dict(mixer=MLP, norm_eps=0.0), "norm_eps=0.0; it must be above 0"),
  (dict(mixer=dict(name="mpl")), "no mixer is called 'mpl'"),
  (dict(mixer=dict(name="rwkv7")), "attention_residual: mixer 'rwkv7' offers arrays to later layers"),
]
INITIAL = [(dict(mixer=MLP), {"depth_attention/query": 0})]


def count(d, mixer, depth=1, block=1):
  """The mixer of one source and its norm; a query, and the norm of the keys."""
  one = d // (1 + -(-depth // block))
  return mixers.count(width=one, **mixer) + 3 * one


def attended_stack(block, **fields):
  letters = {"g": dict(name="min_gru"), "-": dict(mixer=MLP, norm=dict(name="layer"))}
  return AttendedStack(width=4, block=block, stack=dict(depth=5, pattern="g-", letters=letters | fields))


@pytest.mark.parametrize("block, sizes", [(1, (1, 1, 1, 1, 1)), (2, (2, 2, 1))])
def test_a_stack_of_them_is_that_of_the_papers_equations(block, sizes):
  """In loops and with layers apart; steps go on where the prompt ends."""
  stack = attended_stack(block)
  x = jax.random.normal(jax.random.key(0), (2, 6, 4))
  kept = filled(stack, x)
  own = jax.tree.map(np.asarray, stack.apart(kept)["params"])

  def layer(i, sources):
    p = own["layers"]["g-"[i % 2]][str(i // 2)]["mixer"]
    attention, norm = p["depth_attention"], p["norm"]
    z = oracle.attend(attention["query"], attention["norm"]["scale"], sources)
    z = z - z.mean(axis=-1, keepdims=True) * (i % 2)
    z = oracle.rms_normed(z) * norm["scale"] + norm.get("bias", 0)
    mixer = dict(name="min_gru") if i % 2 == 0 else MLP
    return np.asarray(mixer_lib.build(width=4, **mixer).apply({"params": p["inner"]}, jnp.asarray(z)))

  sources, last = oracle.layers(np.asarray(x), sizes, layer), own["last_attention"]
  want = oracle.rms_normed(oracle.attend(last["query"], last["norm"]["scale"], sources)) * own["final_norm"]["scale"]
  y = jax.jit(stack.apply)(kept, x)
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, stack.together(stack.apart(kept)), kept)

  @jax.jit
  def resumed(x):
    _, state = stack.apply(kept, x[:, :5], stack.init_state(2, 6), method="prefill")
    return stack.apply(stack.apart(kept), x[:, 5], state, method="step")[0]

  np.testing.assert_allclose(resumed(x), y[:, 5], rtol=1e-4, atol=1e-5)


def test_a_letter_has_a_mixer_and_a_norm_alone():
  said = r"AttendedStack: letter 'g' has \['scale'\]; a layer .* \['mixer', 'norm'\] alone"
  refused(said, attended_stack, 1, g=dict(mixer=MLP, scale=0.5))
  refused("block=0; it must be at least 1", attended_stack, 0)
