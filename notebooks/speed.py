# %% [markdown]
# # Speed and memory
#
# Attention costs $L^2$ to read and $L$ per written token, a recurrence $L$ and 1. That is the promise; what holds at
# the lengths and sizes one uses depends on constants. This page shows how to find out, first from shapes, which needs
# no computation, then with a clock.

# %%
import os
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from hybrids.mixer import build
from inference import count
from kernels.selective_scan import selective_scan
from training.run import Run

SMALL = "NOTEBOOK_SMALL" in os.environ  # the sizes at which the tests run this notebook

# %% [markdown]
# ## From shapes alone
#
# `count` follows a model's shapes without making an array, so it works for models that no machine here could hold.
# Six models of eight layers and width 256: the numbers a step of training keeps for its backward pass, and the state
# that generation carries.

# %%
MIXERS = ("mamba",) if SMALL else ("softmax", "local", "s4d", "mamba", "mamba2", "gla")
print("mixer      parameters  MFLOPs/token  kept, MB  state in KB after 1,024 and 65,536 tokens")
for name in MIXERS:
  run = Run.from_config(f"configs/mqar.py:mixer={name},vocab=4096,width=256,depth=8,length=1024,batch=8,stages=()")
  costs = count.count(run.model, run.task)
  kept, flops = costs["memory/activations"] / 1e6, costs["flops/forward"] / 1e6
  states = [count.state_bytes(run.model, length) / 1e3 for length in (1024, 65536)]
  print(f"{name:10} {costs['parameters']:>10,} {flops:13.1f} {kept:9.0f}  {states[0]:>10,.0f} {states[1]:>10,.0f}")

# %% [markdown]
# `kept` is what limits the batch; `model.body.remat` trades it for computing again. `./dev run --mode count --config
# …` prints all of this for any config, published models among them.
#
# ## With a clock
#
# Times below are of the machine that wrote this page, and of whatever else it was doing; the slopes are the message,
# not the numbers. Each is the fastest of several calls after one that compiles, which other work disturbs least. First
# **reading**: one layer of width 128, all tokens at once.


# %%
def clock(call, *args):
  """Returns the time of the fastest call in milliseconds."""
  jax.block_until_ready(call(*args))
  times = []
  for _ in range(2 if SMALL else 15):
    start = time.perf_counter()
    jax.block_until_ready(call(*args))
    times.append(1e3 * (time.perf_counter() - start))
  return min(times)


WIDTH = 128
LENGTHS = [64] if SMALL else [256, 1024, 4096]
LAYERS = {name: build(name, width=WIDTH) for name in (("mamba",) if SMALL else ("softmax", "s4d", "mamba", "gla"))}
variables = {
  name: nn.meta.unbox(layer.init(jax.random.key(0), jnp.zeros((1, 2, WIDTH)))) for name, layer in LAYERS.items()
}
reading = {}
for name, layer in LAYERS.items():
  apply = jax.jit(layer.apply)
  reading[name] = [clock(apply, variables[name], jnp.ones((1, length, WIDTH))) for length in LENGTHS]
  print(
    f"{name:8}",
    "  ".join(f"{length}: {1e3 * ms / length:5.1f} µs a token" for length, ms in zip(LENGTHS, reading[name])),
  )

# %% [markdown]
# Then **writing**: one token, after so many tokens of context. The state of a recurrence is as large after one token
# as after a million; attention reads its whole cache.

# %%
writing = {}
for name, layer in LAYERS.items():
  writing[name] = []
  step = jax.jit(lambda x, state: layer.apply(variables[name], x, state, method="step"))
  for length in LENGTHS:
    state = layer.init_state(1, length)
    # full but for one place, as after that many tokens
    if name == "softmax":
      _, state = jax.jit(layer.apply, static_argnames="method")(
        variables[name], jnp.ones((1, length - 1, WIDTH)), state, method="prefill"
      )
    writing[name].append(clock(step, jnp.ones((1, WIDTH)), state))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for name in LAYERS:
  left.loglog(LENGTHS, reading[name], "o-", label=name)
  right.loglog(LENGTHS, [1e3 * ms for ms in writing[name]], "o-", label=name)
for axes in (left, right):
  axes.set_xticks(LENGTHS, [f"{length:,}" for length in LENGTHS])
  axes.set_xticks([], minor=True)
left.set(title="reading all tokens", xlabel="tokens", ylabel="ms")
right.set(title="writing one more token", xlabel="tokens before it", ylabel="µs")
left.legend(fontsize=8)

# %% [markdown]
# A call has a floor of some 50 µs here, Python and JAX's dispatch, below which nothing can be seen on the right. A
# real model writes tokens in one compiled loop.
#
# ## Which implementation runs
#
# Each op has several implementations that compute the same: its definition, portable forms for XLA, C++ for CPUs,
# Pallas kernels for GPUs and TPUs. "auto" takes the first that can run, by rules that say why another cannot. `impl=`
# and `dispatch.force` choose one.

# %%
b, t, e, n = 1, 64 if SMALL else 1024, 64, 16
key = jax.random.split(jax.random.key(0), 4)
args = (
  jax.random.normal(key[0], (b, t, e)),
  jax.nn.softplus(jax.random.normal(key[1], (b, t, e)) - 3),
  -jnp.exp(jnp.zeros((e, n))),
  jax.random.normal(key[2], (b, t, 1, n)),
  jax.random.normal(key[3], (b, t, 1, n)),
  jnp.zeros((b, e, n)),
)
for impl in ("auto", "reference") if SMALL else ("auto", "xla", "associative", "reference"):
  run_it = jax.jit(lambda *args: selective_scan(*args, impl=impl)[0])
  print(f"selective_scan, {impl:12} {clock(run_it, *args):8.2f} ms for {t:,} tokens of {e} channels")

# %% [markdown]
# [Speed on CPUs](../results/cpu_speed.md) has measured tables beside PyTorch and transformers, under a protocol that
# takes both sides in turn; `./dev bench` makes them on your machine. [Kernels](../kernels.md) says what each
# implementation needs.
