# %% [markdown]
# # Bring your own mixer
#
# You have an idea for a layer. This page takes one from its equations to a table beside known layers: 25 lines of
# mixer, a check against the equations, the contract suite that every mixer here passes, and multi-query associative
# recall.
#
# The idea: **a memory of a few slots with soft addresses**. A head has $n$ slots, each of which holds a vector. A
# token computes where it writes, $k_t = \mathrm{softmax}(W_k x_t)$ over the slots, and mixes its value in: a slot
# that gets all of the weight forgets what it held, a slot that gets none keeps it. Reading has a soft address of its
# own:
#
# $$S_t = (1 - k_t) \odot S_{t-1} + k_t v_t^\top, \qquad y_t = S_t^\top\, \mathrm{softmax}(W_q x_t).$$
#
# Nothing here is new under the sun: it is near to gated slot attention (Zhang et al. 2024, arXiv:2409.07146).
#
# ## The mixer
#
# The recurrence is one of the ops in `kernels/`: `gated_linear_attention` with the decay $1 - k_t$ for each row of
# the state. It reads whole sequences in parallel, goes on from any state, knows packed documents and padding, and has
# its gradient; so the mixer inherits all that. Before it stands the short convolution that nearly all recurrent
# layers have, by which a key can see the token before it.

# %%
import os
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from kernels.gated_linear_attention import gated_linear_attention
from layers import Dense
from layers.mixer import Mixer
from layers.short_conv import ShortConv
from scripts import report
from scripts.notebook import trained
from scripts.settings import Setting
from tests.contract.case import Case
from tests.contract.checks import CHECKS
from training import settings

SMALL = "NOTEBOOK_SMALL" in os.environ  # the sizes at which the tests run this notebook


# %%
class State(NamedTuple):
  S: Float[Array, "b h n p"]
  taps: Float[Array, "b w d"]


class Slots(Mixer):
  """S_t = (1 - k_t) S_{t-1} + k_t v_t^T,  y_t = S_t^T q_t, with q and k softmaxes over the slots of a head."""

  width: int
  heads: int = 2
  slots: int = 16

  def setup(self):
    dense = lambda: Dense(self.heads * self.slots, axes=("embed", "heads"))
    self.conv, self.q_proj, self.k_proj = ShortConv(self.width), dense(), dense()
    self.v_proj = Dense(self.width, axes=("embed", "heads"))
    self.out_proj = Dense(self.width, axes=("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch, max_len):
    S = jnp.zeros((batch, self.heads, self.slots, self.width // self.heads))
    return State(S, jnp.zeros((batch, 3, self.width)))

  def mix(self, x, state, where):
    z, taps = self.conv(x, state.taps, **where.masks)
    by_head = lambda a: a.reshape(*a.shape[:2], self.heads, -1)
    q, log_k = (by_head(p(jax.nn.silu(z))).astype(jnp.float32) for p in (self.q_proj, self.k_proj))
    q, log_k = jax.nn.softmax(q), jax.nn.log_softmax(log_k)
    log_a = jnp.log1p(-jnp.exp(jnp.minimum(log_k, -1e-6)))
    y, S = gated_linear_attention(q, jnp.exp(log_k), by_head(self.v_proj(z)), log_a, state.S, **where.masks)
    return self.out_proj(y.reshape(x.shape).astype(x.dtype)), State(S, taps)


# %% [markdown]
# A class is a name, too: `build(Slots, width=32)` and a model's `letters` take it as it is. What callers see
# (`__call__`, `prefill`, `step`, shapes checked, padding blanked) is the base class's.
#
# ## Is it what the equations say?
#
# The first test of a mixer is an oracle: the equations again, token by token, in NumPy, and not from the mixer's
# code.

# %%
mixer = Slots(width=8)
x = jax.random.normal(jax.random.key(0), (1, 20, 8))
variables = nn.meta.unbox(mixer.init(jax.random.key(1), x))
p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])


def oracle(x):
  """Returns the outputs of one sequence, by the equations."""
  softmax = lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True)
  before, S, ys = np.zeros((3, 8)), np.zeros((2, 16, 4)), []
  for token in x:
    before = np.vstack([before[-3:], token])
    z = (before * p["conv"]["kernel"]).sum(0) + p["conv"]["bias"]
    active = z / (1 + np.exp(-z))
    q, k = (softmax((active @ p[name]["kernel"]).reshape(2, 16)) for name in ("q_proj", "k_proj"))
    v = (z @ p["v_proj"]["kernel"]).reshape(2, 4)
    S = (1 - k)[..., None] * S + k[..., None] * v[:, None]
    ys.append(np.einsum("hnp,hn->hp", S, q).ravel() @ p["out_proj"]["kernel"])
  return np.array(ys)


gap = np.abs(mixer.apply(variables, x)[0] - oracle(np.asarray(x[0], np.float64))).max()
assert gap < 1e-5, f"the mixer and its oracle differ by {gap}"
print(f"largest difference: {gap:.1e}")

# %% [markdown]
# ## The contract
#
# The suite that tests every mixer of this code base runs on anything that derives from `Mixer`. Each check is a
# fact: the parallel form is prefill and then steps, packed documents are documents alone, NaN in the padding reaches
# neither outputs nor gradients, no output depends on later tokens, bfloat16 in is bfloat16 out with a float32 state.
# (One more, about shapes, needs the import hook of the tests: `./dev test` runs it.)


# %%
def parameters(d, heads=2, slots=16):
  """The number of parameters, from the equations: convolution, two addresses, values and output."""
  return 5 * d + 2 * d * heads * slots + 2 * d * d


case = Case(Slots(width=8), count=parameters(8))
chosen = ["counts_its_parameters", "parallel_is_prefill_then_steps", "call_separates_documents"]
for name, (check, states) in CHECKS.items():
  if case.state in states and name != "refuses_wrong_shapes" and (not SMALL or name in chosen):
    check(case)
    print("holds:", name.replace("_", " "))

# %% [markdown]
# ## Does it recall?
#
# Multi-query associative recall (Arora et al. 2023, arXiv:2312.04927): rows of key-value pairs, then keys alone, each
# to be answered with its value. A layer needs both a memory and a way to address it. Two layers of width 32, no MLP,
# four pairs in 32 tokens, the same data and steps for all, one learning rate, where a fair
# comparison tries several. One pair of the four by chance is 25 %.

# %%
STEPS = 4 if SMALL else 500
SIZES = (
  f"length=32,pairs=4,vocab=64,batch=32,width=32,steps={STEPS},warmup={STEPS // 10},stages=((0,1),(100,2),(200,4))"
)
QUIET = f"mixer=gla,eval_rows=256,eval.every=0,log_every={STEPS}"
LETTERS = {
  "slots": dict(name=Slots),
  "gla": dict(name="gla"),
  "delta_net": dict(name="delta_net"),
}


def train(mixer, lr, seed):
  """Trains one model, and returns it as the row of a report."""
  config = settings.load(f"configs/mqar.py:{SIZES},lr={lr},seed={seed},{QUIET}")
  with config.unlocked():
    config.model.body.letters.m = ConfigDict(LETTERS[mixer])
  run = trained(config)
  row = dict(step=STEPS, **run.evaluate())
  return dict(status="done", folder="", overrides={}, rows=[row], summary=run.costs | {"step": STEPS})


found = []
for mixer in ("slots",) if SMALL else LETTERS:
  for lr in (1e-2,):
    found.append(Setting({"mixer": mixer, "lr": lr}, "", [train(mixer, lr, seed=0)]))

# %% [markdown]
# `scripts/report.py` makes its tables of such rows; `./dev sweep` and `./dev report` do the same from the command
# line, for a mixer in a file of its own, with seeds, curves and an HTML page.

# %%
print(report.table(found, "eval/validation/accuracy"))

# %% [markdown]
# ## To stay
#
# Save the class as `attention/recurrent/slots.py`, its oracle as `tests/oracles/slots.py`, its sizes and parameter
# count as `tests/mixers/slots.py`, and it is built by name everywhere: `--config configs/mqar.py:mixer=slots`, in
# hybrids, in generation and in `./dev bench`. CONTRIBUTING.md has the list.
