# %% [markdown]
# # Hybrids, and where attention matters
#
# Jamba, Griffin, Nemotron-H and their kin put a few layers of attention among many recurrent ones. Why does that
# work, and does it matter where they stand? A model here is a string of letters, so the question is one line of
# Python: try the strings.
#
# The task is multi-query associative recall (Arora et al. 2023, arXiv:2312.04927): a row has key-value pairs, then
# keys alone, each to be answered with its value. Attention can look a key up, if it can tell that a value belongs to
# the key before it; a recurrence can tell what stands next to what, and must squeeze all pairs into its state.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

from inference import count
from scripts.notebook import trained
from scripts.pictures import measure
from training.run import Run

SMALL = "NOTEBOOK_SMALL" in os.environ  # the sizes at which the tests run this notebook

# %% [markdown]
# ## Every string of three letters
#
# `m` is Mamba with a small state, `a` is softmax attention without positions, width 32, no MLPs. Eight pairs in 32
# tokens: one of the row's values at random is right at 12.5 %.

# %%
STEPS = 12 if SMALL else 600
LETTERS = "m=mamba,m.state=8,a=softmax,a.heads=1"
CONFIG = (
  f"configs/mqar.py:length=32,pairs=8,vocab=64,batch=32,width=32,lr=4e-3,steps={STEPS},warmup={STEPS // 10},"
  f"stages=((0,1),({STEPS // 6},2),({STEPS // 3},4),({STEPS // 2},8)),eval_rows={32 if SMALL else 512},schedule=cosine,"
  f"eval.every=0,log_every={STEPS}"
)
PATTERNS = ("ma",) if SMALL else ("mmm", "amm", "mam", "mma", "aaa")


def letters(pattern):
  """Returns the arguments that make a pattern, with the letters that it uses."""
  used = [part for part in LETTERS.split(",") if part[0] in pattern]
  return ",".join([f"pattern={pattern}", f"depth={len(pattern)}", *used])


runs = {pattern: trained(f"{CONFIG},{letters(pattern)}") for pattern in PATTERNS}
accuracy = {pattern: run.evaluate()["eval/validation/accuracy"] for pattern, run in runs.items()}
print("pattern  right   parameters  state in bytes, 32 and 4,096 tokens")
for pattern, run in runs.items():
  state = [count.state_bytes(run.model, length) for length in (32, 4096)]
  print(f"{pattern:7} {100 * accuracy[pattern]:5.1f} %  {run.costs['parameters']:>10,}  {state[0]:>8,} {state[1]:>10,}")

# %% [markdown]
# Attention in first place is wasted: without positions it cannot tell which value stands next to which key. After one
# Mamba, whose short convolution puts every key beside its value, a single attention layer answers. That is the
# division of labour in hybrids: the recurrence gives each token its context, and attention fetches, by content, from
# any distance. And it is why Jamba's attention has no positional encoding: the layers before it know the order.
#
# ## Is it really the attention?
#
# Take a trained hybrid and silence its branches one by one, by setting the output map of each to zero. What the model
# needs, it fails without.


# %%
def silenced(variables, letter, number):
  """Returns the variables, layer by layer, with the output map of one branch at zero."""

  def change(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return 0 * leaf if f"body/{letter}/{number}/" in name and "out_proj" in name else leaf

  return jax.tree_util.tree_map_with_path(change, variables)


pattern = PATTERNS[-2] if len(PATTERNS) > 1 else PATTERNS[0]
run = runs[pattern]
whole = run.model.apart(jax.device_get(run.variables))
batch = next(iter(next(iter(run.task.eval_sets().values()))()))
logits = jax.jit(run.model.apply)


def right(variables):
  """Returns the share of right answers in one batch of validation rows."""
  hit = np.asarray(logits(variables, batch["inputs"])).argmax(-1) == batch["targets"]
  return float((hit * batch["weights"]).sum() / batch["weights"].sum())


shares = {"all": right(whole)}
for place, letter in enumerate(pattern):
  shares[f"without layer {place}, {letter}"] = right(silenced(whole, letter, pattern[:place].count(letter)))
for name, share in shares.items():
  print(f"{name:20} {100 * share:5.1f} % right")

# %% [markdown]
# ## What it looks at
#
# The norm of $\partial y_t / \partial x_s$ of each layer of the same model on one row. The first half of the row has
# the pairs, the second asks for them.

# %%
row = {"inputs": batch["inputs"][:1]}
layers = measure.layers(run.model, jax.device_get(run.variables), row)
figure, panels = plt.subplots(1, len(layers), figsize=(3.2 * len(layers), 3), layout="constrained", squeeze=False)
for axes, layer in zip(panels[0], layers):
  M = measure.attention(layer)
  off = M - np.diag(np.diag(M))
  axes.imshow(np.sqrt(off / off.max()), cmap="magma_r")
  axes.set(title=f"layer {layer.number}: {layer.name}", xlabel="input s", ylabel="output t")
inputs, weights, targets = (batch[key][0] for key in ("inputs", "weights", "targets"))
asked = np.flatnonzero(weights)
value_of = {int(inputs[i]): i + 1 for i in range(0, 2 * run.task.pairs, 2)}
attention = next((layer for layer in layers if layer.name == "softmax"), None)
if attention is not None:
  M = measure.attention(attention)
  hits = [int(np.argmax(M[t, : 2 * run.task.pairs])) == value_of[int(inputs[t])] for t in asked]
  print(f"the attention of {sum(hits)} of {len(hits)} questions depends most on the place of the right value")

# %% [markdown]
# ## The price
#
# Attention's cache grows with every token, the state of a recurrence does not. The fewer letters of attention, the
# slower a hybrid's memory grows; one in eight, as in Jamba, is an eighth of a transformer's:

# %%
figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
lengths = [2**power for power in range(6, 17)]
for pattern in ("m", "mmmmmmma", "mmma", "ma", "a"):
  config = f"configs/mqar.py:width=64,depth=8,pattern={pattern}," + ",".join(
    part for part in LETTERS.split(",") if part[0] in pattern
  )
  model = Run.from_config(config).model
  axes.loglog(lengths, [count.state_bytes(model, length) for length in lengths], label=f"{pattern} tiled to 8 letters")
axes.set(title="state of one sequence", xlabel="tokens read", ylabel="bytes")
axes.legend(fontsize=8)

# %% [markdown]
# Five models of one seed on one small task are an illustration. [A hybrid beside its siblings](../results/hybrids.md)
# has three seeds at equal parameters, on recall, where the hybrid alone is right, and on bytes, where at that size it
# is behind Mamba. A pattern of yours is one argument away: `./dev run --config
# configs/bytes.py:pattern=m-m-a-,m=mamba,a=softmax,depth=12 --workdir runs/hybrid`, and `./dev sweep --grid
# pattern=mma,mam` compares several.
