# %% [markdown]
# # Beyond the length of the training
#
# A model that has read rows of 20 tokens in training is asked about rows of 200. Whether it can answer depends less
# on training than on what its layers can do at all. Two tasks show two sides of it: parity asks for a computation
# that goes on for ever, induction heads for a look-up that must not care how far it reaches.

# %%
import os

import matplotlib.pyplot as plt

from scripts.notebook import trained

SMALL = "NOTEBOOK_SMALL" in os.environ  # the sizes at which the tests run this notebook

# %% [markdown]
# ## Parity: what a state can do
#
# At every token of a string of bits the model says whether the ones so far are even or odd. The exact solution has
# one bit of state, $s_t = s_{t-1}\,(-1)^{b_t}$. A linear recurrence $s_t = a_t s_{t-1} + \dots$ can do that if its
# factor can be $-1$. Mamba's and GLA's decays lie in $(0, 1)$: no choice of parameters flips a sign, and what such a
# layer learns is to count short strings. DeltaNet's state is multiplied by $1 - \beta k k^\top$, whose eigenvalue
# along $k$ is $1 - \beta$; let $\beta$ reach 2, and it can be $-1$ (Grazzi et al. 2025, arXiv:2411.12537).
#
# Two layers of width 32, the same rows of 2 to 20 bits for all; then 256 new rows of each range of lengths.

# %%
STEPS = 3 if SMALL else 250
RANGES = ((2, 10), (11, 20), (21, 40), (41, 80), (81, 160))
CONFIG = (
  f"configs/state_tracking.py:length=20,batch=32,width=32,lr=4e-3,steps={STEPS},warmup={STEPS // 10},depth=2,"
  f"eval_sizes={str(RANGES).replace(' ', '')},eval_rows={8 if SMALL else 256},eval.every=0,log_every={STEPS}"
)
MIXERS = {
  "DeltaNet, β up to 2": "mixer=delta_net,m.taps=1,m.negative_eigenvalues=true",
  "DeltaNet, β up to 1": "mixer=delta_net,m.taps=1",
  "Mamba": "mixer=mamba",
  "softmax attention": "mixer=softmax",
}
if SMALL:
  MIXERS = {"Mamba": MIXERS["Mamba"]}
accuracy = {}
for name, mixer in MIXERS.items():
  run = trained(f"{CONFIG},{mixer}")
  found = run.evaluate()
  accuracy[name] = [found[f"eval/length_{first}_{last}/accuracy"] for first, last in RANGES]
  print(
    f"{name:20}", "  ".join(f"{first} to {last}: {100 * a:3.0f} %" for (first, last), a in zip(RANGES, accuracy[name]))
  )

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
for number, (name, values) in enumerate(accuracy.items()):
  axes.plot([last for _, last in RANGES], [100 * value for value in values], "os^D"[number] + "-", label=name)
axes.axvline(20, color="0.5", linestyle=":")
axes.axhline(50, color="0.5", linewidth=0.8)
axes.set(
  title="parity by length, trained left of the dotted line", xlabel="longest row / bits", ylabel="right answers / %"
)
axes.set_xscale("log", base=2)
axes.legend(fontsize=8)

# %% [markdown]
# The line at 50 % is guessing. [State tracking](../results/state_tracking.md) has the same at larger sizes, with
# eight mixers, three seeds each, and rows of up to 255 tokens.
#
# ## Induction: what positions do
#
# A row has one trigger token somewhere, and again at its end; the answer is what followed it the first time. Nothing
# in the rule depends on the distance. Attention can look anywhere, but how far it has learned to look is a matter of
# how it knows positions; a state can hold the answer for ever, but must have learned not to let it fade.

# %%
STEPS = 3 if SMALL else 500
LENGTHS = (16, 32) if SMALL else (32, 64, 128, 256, 512)
CONFIG = (
  f"configs/induction_heads.py:length=64,batch=16,width=48,depth=2,lr=3e-3,steps={STEPS},warmup={STEPS // 10},"
  f"stages=((0,64,4),({STEPS // 2},64,1)),eval_lengths={str(LENGTHS).replace(' ', '')},eval_rows={8 if SMALL else 128},"
  f"schedule=cosine,eval.every=0,log_every={STEPS}"
)
MIXERS = {
  "Mamba": "mixer=mamba",
  "attention, rotary": "mixer=softmax,m.position=rope,m.heads=4",
  "attention, ALiBi": "mixer=softmax,m.position=alibi,m.heads=4",
  "attention, learned": f"mixer=softmax,m.heads=4,position=learned,max_len={LENGTHS[-1]}",
}
if SMALL:
  MIXERS = {"Mamba": MIXERS["Mamba"]}
accuracy, runs = {}, {}
for name, mixer in MIXERS.items():
  run = runs[name] = trained(f"{CONFIG},{mixer}")
  found = run.evaluate()
  accuracy[name] = [found[f"eval/length_{length}/accuracy"] for length in LENGTHS]
  print(f"{name:20}", "  ".join(f"{length}: {100 * a:3.0f} %" for length, a in zip(LENGTHS, accuracy[name])))

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
for number, (name, values) in enumerate(accuracy.items()):
  axes.plot(LENGTHS, [100 * value for value in values], "os^D"[number] + "-", label=name)
axes.axvline(64, color="0.5", linestyle=":")
axes.axhline(100 / 15, color="0.5", linewidth=0.8)
axes.set(title="induction by length, trained at the dotted line", xlabel="row / tokens", ylabel="right answers / %")
axes.set_xscale("log", base=2)
axes.legend(fontsize=8)

# %% [markdown]
# One seed each: how far a model reaches beyond its training varies much between seeds, and none of the above is a
# statement about a mixer. [Induction heads](../results/induction_heads.md) follows one Mamba to a million tokens,
# through which its state is carried from chunk to chunk.
#
# ## What to do with a model of yours
#
# * `--mode eval --config.data.eval_lengths='(64,1024,65536)'` asks a trained model of this task about other lengths,
#   and `--config.eval.chunk=4096` reads long rows in pieces, so that memory does not grow with them.
# * For language models `data.eval_length=8192` evaluates longer rows than those of the training, and `./dev pictures`
#   draws the loss by position.
# * An evaluator in the config, `evaluators.long.data.length=1024`, watches other lengths while a model trains
#   ([configs](../configs.md#evaluators)).
# * Attention stretched to a longer context: `m.scaling` of rotary positions ([attention](../attention.md)).
