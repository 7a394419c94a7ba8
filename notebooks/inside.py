# %% [markdown]
# # What the state remembers
#
# Attention keeps everything it has read, and can be asked what it looks at. A recurrent layer keeps a state of fixed
# size, and what is in there has to be found out. This page looks into layers, fresh and trained, by four questions:
# how far back does the state reach, what are its time scales, what does it do at which token, and on which input does
# an output depend. `./dev look` draws the same of any trained run.

# %%
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from hybrids.mixer import build
from scripts.notebook import trained
from scripts.pictures import measure
from training.run import Run

SMALL = "NOTEBOOK_SMALL" in os.environ  # the sizes at which the tests run this notebook
rng = np.random.default_rng(0)

# %% [markdown]
# ## How far back: a probe
#
# Feed white noise to a fresh layer, take the state after 64 tokens, and ask a linear regression for each of the
# inputs that went in. The share of the variance that it explains, $R^2$ on held-out sequences, is what the state
# holds of that token in a form that a linear map can read.

# %%
WIDTH, TOKENS, ROWS = 8, 64, 64 if SMALL else 3000


def memory(name, **fields):
  """Returns the number of values in a fresh mixer's state, and R² of the input k tokens ago, for each k."""
  mixer = build(name, width=WIDTH, **fields)
  variables = nn.meta.unbox(mixer.init(jax.random.key(1), jnp.zeros((1, 2, WIDTH))))
  x = rng.normal(size=(ROWS, TOKENS, WIDTH)).astype(np.float32)
  read = jax.jit(lambda x: mixer.apply(variables, x, mixer.init_state(len(x), TOKENS), method="prefill")[1])
  leaves = [np.asarray(leaf).reshape(ROWS, -1) for leaf in jax.tree.leaves(read(x))]
  # of complex states, both parts
  state = np.concatenate([part for z in leaves for part in ((z.real, z.imag) if np.iscomplexobj(z) else (z,))], axis=1)
  state = (state - state.mean(0)) / (state.std(0) + 1e-9)
  train, held = np.arange(ROWS) < 0.8 * ROWS, np.arange(ROWS) >= 0.8 * ROWS
  gram = state[train].T @ state[train] + 1e-2 * ROWS * np.eye(state.shape[1]) / state.shape[1]
  weights = np.linalg.solve(gram, state[train].T @ x[train].reshape(train.sum(), -1))
  wrong = (state[held] @ weights).reshape(-1, TOKENS, WIDTH) - x[held]
  return state.shape[1], 1 - (wrong**2).mean((0, 2))[::-1]


FRESH = {
  "S4D, LegS": dict(name="s4d", state=32, dt_min=0.01),
  "S4D, real": dict(name="s4d", state=32, dt_min=0.01, A_init="real"),
  "Mamba": dict(name="mamba", state=16),
  "RetNet": dict(name="retnet", heads=1),
  "GRU": dict(name="gru"),
  "DeltaNet": dict(name="delta_net", heads=1),
}
if SMALL:
  FRESH = {"GRU": FRESH["GRU"]}
figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
for number, (name, fields) in enumerate(FRESH.items()):
  size, explained = memory(**fields)
  axes.plot(explained, "os^Dv*"[number] + "-", markersize=3, linewidth=1, label=f"{name}, {size} numbers")
axes.set(title="what a linear probe finds in a fresh state", xlabel="tokens ago", ylabel="R²", ylim=(-0.05, 1.05))
axes.legend(fontsize=8)

# %% [markdown]
# LegS spreads its numbers over the past evenly, as HiPPO derives it; the same number of real exponentials sees the
# last few tokens and then almost nothing apart. Gated layers start with what their gates are at initialisation, and
# learn to keep what matters: the size of the state bounds *how much* they can hold, training decides *what*.
#
# ## Two models that look things up
#
# Now trained ones. The task is an induction head: a row of random tokens has a trigger somewhere, and again at its
# end; the answer is the token after the first trigger. Two layers of Mamba, and two of softmax attention.

# %%
STEPS = 3 if SMALL else 500
CONFIG = (
  f"configs/induction_heads.py:length=64,batch=16,width=48,depth=2,lr=3e-3,steps={STEPS},warmup={STEPS // 10},"
  f"stages=((0,64,4),({STEPS // 2},64,1)),eval_lengths=(64,),eval_rows={8 if SMALL else 256},schedule=cosine,"
  f"eval.every=0,log_every={STEPS}"
)
runs = {"Mamba": trained(f"{CONFIG},mixer=mamba")}
if not SMALL:
  runs["attention"] = trained(f"{CONFIG},mixer=softmax,m.position=rope,m.heads=1")
for name, run in runs.items():
  print(f"{name:10} {100 * run.evaluate()['eval/length_64/accuracy']:.1f} % of the answers are right")

batch_of_rows = next(iter(next(iter(runs["Mamba"].task.eval_sets().values()))()))["inputs"]
row = batch_of_rows[:1]
TRIGGER = 15
first = int(np.argmax(row[0] == TRIGGER))
print(f"the row to look at has its trigger at {first}, its answer at {first + 1}, its question at {row.shape[1] - 2}")
layers = {name: measure.layers(run.model, jax.device_get(run.variables), {"inputs": row}) for name, run in runs.items()}

# %% [markdown]
# ## On which input does an output depend?
#
# The norm of $\partial y_t / \partial x_s$ over channels, of each mixer alone, is an attention matrix that every
# mixer has. It counts all that a token does: what it adds, and what it makes of gates and steps.

# %%
figure, panels = plt.subplots(1, 2 * len(runs), figsize=(11, 3), layout="constrained", squeeze=False)
matrices = {(name, layer.number): measure.attention(layer) for name in runs for layer in layers[name]}
for axes, ((name, number), M) in zip(panels[0], matrices.items()):
  off = M - np.diag(np.diag(M))
  axes.imshow(np.sqrt(off / off.max()), cmap="magma_r")
  axes.set(title=f"{name}, layer {number}", xlabel="input s", ylabel="output t")

# %% [markdown]
# The circuit of Olsson et al. 2022 (arXiv:2209.11895) is two steps long: the first layer tells each token what stood
# before it, the second looks for a token whose predecessor is the present one. Attention shows it plainly: its first
# layer has its weight right below the diagonal, its second a column where the answer stands. Mamba's layers are less
# sharp, both depend on the trigger and the tokens after it. How often over many rows is the answer the input on which
# the question's output depends most?

# %%
rows = batch_of_rows[: 4 if SMALL else 128]
starts = np.argmax(rows == TRIGGER, axis=1)


def looks_at(layer, at):
  """Returns how much the output at one token of each row depends on each other input, "b s"."""
  signs = rng.choice([-1.0, 1.0], size=(16, len(at), layer.x.shape[-1])).astype(np.float32)

  @jax.jit
  def norms(x):
    out = lambda x: layer.mixer.apply(layer.variables, x)[jnp.arange(len(at)), at]
    pulled = jax.vmap(lambda probe: jax.vjp(out, x)[1](probe)[0])(signs)
    return jnp.sqrt(jnp.sum(pulled**2, axis=(0, 3)))

  return np.asarray(norms(layer.x)) * (np.arange(layer.x.shape[1]) != at[:, None])


for name, run in runs.items():
  one, two = measure.layers(run.model, jax.device_get(run.variables), {"inputs": rows})
  back = (starts + 1)[:, None] - looks_at(one, starts + 1).argmax(1)[:, None]
  ahead = looks_at(two, np.full(len(rows), rows.shape[1] - 2)).argmax(1) - (starts + 1)
  print(
    f"{name}: at the answer, layer 0 depends most on the token before it in {100 * np.mean(back == 1):.0f} % of rows;"
  )
  print(f"  at the question, layer 1 on the answer in {100 * np.mean(ahead == 0):.0f} %,", end=" ")
  print(f"on it or one of the three after it in {100 * np.mean((ahead >= 0) & (ahead <= 3)):.0f} %")

# %% [markdown]
# Three tokens after it count as well, because Mamba's short convolution carries a token to the next three.
#
# ## The time step of each token
#
# Mamba's $\Delta$ decides at each token and channel how much of it enters and how much of the past stays: near 0 the
# token is passed over, large it replaces what was there.

# %%
steps = [measure.steps(layer) for layer in layers["Mamba"]]
figure, panels = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for number, (axes, dt) in enumerate(zip(panels, steps)):
  image = axes.imshow(np.log10(dt[:, np.argsort(np.median(dt, axis=0))].T), aspect="auto", origin="lower")
  axes.axvline(first, color="white", linestyle=":")
  axes.set(title=f"log10 Δ, layer {number}", xlabel="token; dotted: the trigger", ylabel="channel")
  figure.colorbar(image, ax=axes)

# %% [markdown]
# ## The state along the row
#
# The state itself can be watched: here its norm, and how much each token changes it, relative to its norm.

# %%
layer = layers["Mamba"][1]
state = layer.mixer.init_state(1, 64)
step = jax.jit(lambda x, state: layer.mixer.apply(layer.variables, x, state, method="step")[1])
norms, changes = [], []
for t in range(row.shape[1]):
  new = step(layer.x[:, t], state)
  norms.append(float(jnp.linalg.norm(new.h)))
  changes.append(float(jnp.linalg.norm(new.h - state.h)) / norms[-1])
  state = new
figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
axes.plot(np.array(norms) / max(norms), label="norm of the state, over its largest")
axes.plot(changes, label="change at this token, relative")
axes.axvline(first, color="0.5", linestyle=":")
axes.set(title="Mamba, layer 1", xlabel="token; dotted: the trigger", ylim=(0, None))
axes.legend(fontsize=8)

# %% [markdown]
# ## Time scales: eigenvalues and kernels
#
# A step multiplies the state by a matrix. Its eigenvalues say how long each direction lasts: $\lambda$ has faded to a
# third after $1 / (1 - |\lambda|)$ tokens. Of layers that do not change with time they are numbers, of selective ones
# they move with every token.

# %%
fresh = Run.from_config(f"{CONFIG},mixer=s4d,m.activation=none")
s4d = measure.layers(fresh.model, jax.device_get(fresh.variables), {"inputs": row})[0]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
lam = measure.eigenvalues(s4d, tokens=1).ravel()
left.plot(lam.real, lam.imag, ".", markersize=3)
left.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.6"))
left.set(title="S4D, fresh: one step", aspect="equal", xlabel="real part", ylabel="imaginary part")
values = measure.eigenvalues(layer, tokens=row.shape[1])
middle.hist(values.ravel(), bins=40)
middle.set(title="Mamba, layer 1: all tokens", xlabel="eigenvalue", yscale="log")
kernel = np.einsum("tcc->tc", measure.kernel(s4d))
right.plot(kernel[:, :4], linewidth=1)
right.set(title="S4D, fresh: four kernels", xlabel="lag / tokens")

# %% [markdown]
# [Looking inside](../ssm.md#looking-inside) has larger pictures, of three models trained on selective copying.
