# %% [markdown]
# # S4 from the equation to the trained layer
#
# S4 (Gu, Goel & Ré 2021, arXiv:2111.00396) is the layer that made state space models a rival of attention. This page
# derives it, computes it in three ways, and trains it. Every function that matters is imported from this code base,
# where it is tested; what is written out here is written out to be compared with it.
#
# One input channel $u(t)$ drives a state $x(t)$ of $N$ numbers, from which one output is read:
#
# $$x'(t) = A\,x(t) + B\,u(t), \qquad y(t) = C\,x(t) + D\,u(t).$$
#
# A layer has $d$ such systems, one a channel, and a map that mixes channels after them. Three questions decide
# whether that is of any use: what $A$ must be so that the state remembers, how thousands of tokens are read in
# parallel, and what one more token costs.

# %%
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from kernels.cauchy import cauchy
from scripts.pictures import three_views
from ssm.lti import dplr, hippo
from ssm.lti.s4 import S4
from ssm.lti.s4d import S4D
from training import optimizer

SMALL = "NOTEBOOK_SMALL" in os.environ  # the sizes at which the tests run this notebook
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. What the state should hold
#
# HiPPO (Gu et al. 2020, arXiv:2008.07669) turns the question around: say what the state *is*, and derive $A$. Let it
# be the first $N$ coefficients of the whole past on Legendre polynomials, stretched so that they always span $[0,
# t]$:
#
# $$u(s) \approx \sum_{n<N} x_n(t)\, \sqrt{2n+1}\; P_n\!\left(\tfrac{2s}{t} - 1\right), \qquad 0 \le s \le t.$$
#
# Differentiate the coefficients by $t$, and they obey a linear differential equation, $x' = (A x + B u)/t$, whose
# matrices are `hippo.legs`. Nothing was fitted. Let us run it on a signal, token by token (Tustin's rule, as below),
# and read the past back from a few numbers.


# %%
def remember(u, n):
  """Returns the LegS state after each token of u."""
  A, B = hippo.legs(n)
  x, states = np.zeros(n), []
  for k, value in enumerate(u, start=1):
    half = A / (2 * k)
    x = np.linalg.solve(np.eye(n) - half, x + half @ x + B * value / k)
    states.append(x)
  return np.array(states)


def recall(x, t):
  """Returns the signal of the first t tokens that a state stands for."""
  scale = np.sqrt(2 * np.arange(len(x)) + 1)
  return np.polynomial.legendre.legval(2 * (np.arange(t) + 0.5) / t - 1, scale * x)


time = np.arange(600)
u = np.sin(time / 40) + 0.6 * np.sin(time / 17 + 1) * (time > 200)
figure, panels = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained", sharey=True)
for axes, n in zip(panels, (4, 16, 32)):
  states = remember(u, n)
  axes.plot(u, color="0.75", linewidth=3, label="signal")
  for t in (250, 600):
    axes.plot(recall(states[t - 1], t), linewidth=1.2, label=f"recalled at {t}")
  axes.set(title=f"{n} numbers", xlabel="token")
panels[0].legend(fontsize=7)
error = np.sqrt(np.mean((recall(states[-1], len(u)) - u) ** 2) / np.mean(u**2))
print(f"root mean square error of 32 numbers for 600 tokens: {100 * error:.1f} % of the signal")

# %% [markdown]
# S4 drops the factor $1/t$ and so forgets: with a fixed step `dt` its state holds the past under an exponential
# window of about $1/dt$ tokens. Different channels get different steps, from 10 to 1,000 tokens by default.
#
# ## 2. From continuous time to tokens
#
# Tokens come at times $0, dt, 2\,dt, \dots$ Tustin's rule (the trapezoid rule) turns the equation into
#
# $$x_k = \bar A x_{k-1} + \bar B u_k, \qquad
# \bar A = (1 - \tfrac{dt}{2} A)^{-1}(1 + \tfrac{dt}{2} A), \quad \bar B = (1 - \tfrac{dt}{2} A)^{-1} dt\, B.$$
#
# That is the **recurrent view**: one token costs the same however many came before. Unrolled from $x_{-1} = 0$ it is
#
# $$y_k = \sum_{i \le k} K_i\, u_{k-i}, \qquad K_i = C \bar A^i \bar B,$$
#
# the **convolutional view**: given the taps $K$, all tokens at once by FFT. `S4` has both as methods, `step` and
# `__call__`, and the continuous equation is the third view. `three_views` solves it with a fine Runge-Kutta step.

# %%
found = three_views.views()
figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
tokens = np.arange(three_views.TOKENS) + 1
axes.plot(
  (np.arange(tokens.size * three_views.FINE) + 1) / three_views.FINE, found.ode, color="0.4", label="ODE, fine steps"
)
axes.plot(tokens, found.recurrence, "o", fillstyle="none", markersize=7, label="recurrence: S4.step")
axes.plot(tokens, found.convolution, "x", markersize=5, label="convolution: S4.__call__")
axes.set(title="one S4, three views", xlabel="time / tokens", ylabel="y")
axes.legend(fontsize=8, loc="upper right")
gaps = three_views.gaps(found)
assert gaps["recurrence"] < 1e-5, f"the recurrence left the convolution: {gaps}"
print({name: f"{gap:.1e}" for name, gap in gaps.items()})

# %% [markdown]
# Recurrence and convolution are the same function up to float32's rounding. The ODE differs by Tustin's error, which
# goes away as `dt` does.
#
# ## 3. The kernel, fast
#
# Everything hangs on $K$. Multiplying it out takes $L$ products with a dense $N \times N$ matrix, for each channel.
# S4's contribution is to get all $L$ taps in $O(N + L)$ memory, in four moves. Each is a few lines; we make them one
# by one on a single channel in float64, and compare.

# %%
N, L, dt = 16, 512, 0.01
A, B = hippo.legs(N)
C = rng.normal(size=N)
one = np.eye(N)
A_bar = np.linalg.solve(one - dt / 2 * A, one + dt / 2 * A)
B_bar = np.linalg.solve(one - dt / 2 * A, dt * B)


def taps_by_powers():
  """Returns C A^i B for all i, by multiplying."""
  x, K = B_bar, []
  for _ in range(L):
    K.append(C @ x)
    x = A_bar @ x
  return np.array(K)


K = taps_by_powers()

# %% [markdown]
# **Move 1: the generating function.** Ask for the spectrum instead of the taps. The geometric series has the sum
# $C\,(1 - \bar A^L w^L)(1 - \bar A w)^{-1} \bar B$; where $w^L = 1$,
#
# $$\hat K(w) = \sum_{i<L} K_i w^i = \tilde C\,(1 - \bar A w)^{-1} \bar B, \qquad \tilde C = C\,(1 - \bar A^L),$$
#
# and $K$ is the inverse FFT of $\hat K$ at these $L$ roots of unity. Powers of $\bar A$ became one inverse per
# point.

# %%
w = np.exp(-2j * np.pi * np.arange(L // 2 + 1) / L)
C_cut = C @ (one - np.linalg.matrix_power(A_bar, L))
spectrum = np.array([C_cut @ np.linalg.solve(one - A_bar * z, B_bar) for z in w])
print("largest difference of the taps:", np.abs(np.fft.irfft(spectrum, L) - K).max())

# %% [markdown]
# **Move 2: back to continuous time.** Put $\bar A$ and $\bar B$ in, and the discretisation cancels out of the
# inverse:
#
# $$\hat K(w) = \frac{2}{1+w}\; \tilde C \left(\frac{2}{dt}\,\frac{1-w}{1+w} - A\right)^{-1} B.$$
#
# So all we need is the *resolvent* $(z - A)^{-1}$ of the continuous matrix. If $A$ were diagonal, that would be a
# division: a sum of $N$ poles at each point, the Cauchy kernel.
#
# **Move 3: which diagonal?** LegS has distinct eigenvalues, so $A = V \Lambda V^{-1}$ exists. It is useless: the
# entries of $V$ grow exponentially with $N$. But $A + P P^\top$ with one vector $P$ is *normal*, and normal
# matrices have orthogonal eigenvectors: diagonal plus low rank, DPLR.

# %%
sizes = [4, 8, 16, 32, 64]
condition = [np.linalg.cond(np.linalg.eig(hippo.legs(n)[0])[1]) for n in sizes]
unitary = [np.linalg.cond(hippo.normal("legs", n).V) for n in sizes]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
left.semilogy(sizes, condition, "o-", label="eigenvectors of A")
left.semilogy(sizes, unitary, "s-", label="eigenvectors of A + P Pᵀ")
left.axhline(1e16, color="0.6", linestyle=":", label="all digits of float64")
left.set(title="condition number", xlabel="N", xticks=sizes)
left.legend(fontsize=8)
lam = hippo.normal("legs", N).lam
right.plot(np.linalg.eigvals(A).real, np.linalg.eigvals(A).imag, "o", markersize=4, label="A: −1, −2, … −N")
right.plot(lam.real, lam.imag, "s", markersize=4, label="A + P Pᵀ: all at −1/2")
right.set(title=f"eigenvalues, N = {N}", xlabel="real part", ylabel="imaginary part")
right.legend(fontsize=8)

# %% [markdown]
# **Move 4: Woodbury.** The resolvent of diagonal minus rank one is four Cauchy sums. With
# $R = (z - \Lambda)^{-1}$ and $\langle a, b\rangle = \sum_n a_n R_n b_n$,
#
# $$\tilde C (z - \Lambda + P P^*)^{-1} B
# = \langle \tilde C, B\rangle - \langle \tilde C, P\rangle\,(1 + \langle P^*, P\rangle)^{-1}\,\langle P^*,
# B\rangle.$$
#
# Eigenvalues come in conjugate pairs, so one of each pair is kept. `hippo.dplr` gives $\Lambda$, $P$ and $B$ in these
# coordinates, and `kernels.cauchy` does the four sums; at $w = -1$, where $z$ is infinite, it takes its points as
# fractions $p/q$.

# %%
lam, P, B_lam = hippo.dplr("legs", N)
P = P[0]
V = hippo.normal("legs", N).V[:, : N // 2]
half = np.pi * np.arange(L // 2 + 1) / L
p, q = 2 * np.sin(half), np.cos(half)  # z dt = 2 (1 - w) / (1 + w) = i p / q
q[-1] = 0
C_lam = C_cut @ V
products = np.stack([C_lam * B_lam, C_lam * P, P.conj() * B_lam, P.conj() * P])
with jax.enable_x64(True):
  S = np.asarray(cauchy(jnp.asarray(products[None]), jnp.asarray(dt * lam[None]), jnp.asarray(p), jnp.asarray(q)))[0]
by_cauchy = dt * np.exp(1j * half) * (S[0] - q * dt * S[1] * S[2] / (1 + q * dt * S[3]))
gap = np.abs(np.fft.irfft(by_cauchy, L) - K).max() / np.abs(K).max()
assert gap < 1e-8, f"the Cauchy form is not the kernel: {gap}"
print(f"relative to the largest tap: {gap:.1e}")

# %% [markdown]
# This is Algorithm 1 of the paper. The layer calls it as `dplr.taps`, in float32 and for all channels; the parameter
# is $C$, and $\tilde C$ is made from it, so that one layer serves every length.

# %%
each = lambda z: jnp.asarray(z, jnp.complex64)[None]
in_float32 = dplr.taps(jnp.full(1, dt), each(lam), each(P), each(B_lam), each(C @ V), L)[0]
print(f"dplr.taps in float32: {np.abs(in_float32 - K).max() / np.abs(K).max():.1e} of the largest tap")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
left.plot(K, color="0.7", linewidth=3, label="powers")
left.plot(in_float32, linewidth=1, label="Cauchy, float32")
left.set(title="taps", xlabel="lag")
right.semilogy(np.abs(by_cauchy), linewidth=1)
right.set(title="their spectrum, what is computed", xlabel="frequency")
left.legend(fontsize=8)

# %% [markdown]
# ## 4. The layer
#
# `S4(width, state)` has $d$ such systems with $A$ from HiPPO, $C$ random and `dt` log-uniform, then GELU and a gated
# linear map across channels. The steps are what makes the channels differ:

# %%
layer = S4(width=4, state=32, activation="none")
variables = nn.meta.unbox(layer.init(jax.random.key(0), jnp.zeros((1, 1, 4))))
variables["params"]["log_dt"] = jnp.log(jnp.asarray([0.1, 0.03, 0.01, 0.003]))
impulse = jnp.zeros((1, 400, 4)).at[:, 0].set(1.0)
figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
taps = layer.apply(variables, impulse)[0, 1:]
axes.plot(taps / jnp.abs(taps).max(0), label=[f"dt = {dt}" for dt in (0.1, 0.03, 0.01, 0.003)], linewidth=1)
axes.set(title="kernels of four channels, each over its largest tap", xlabel="lag / tokens")
axes.legend(fontsize=8)

# %% [markdown]
# ## 5. Trained: repeat what you heard
#
# The plainest test of memory: a smooth random signal comes in, and the signal of 64 tokens ago must come out. A
# linear model can do it if it has the right kernel, a pulse at lag 64. We train one layer of S4 without
# nonlinearities between two linear maps, and the same with other spectra: S4's Fourier matrix (`fout`), S4D's
# diagonal approximation of LegS, and real decaying exponentials, which is what a leaky integrator has.

# %%
LENGTH, DELAY, STEPS = (64, 16, 3) if SMALL else (256, 64, 400)


class Echo(nn.Module):
  """One state space layer between two linear maps."""

  mixer: nn.Module

  @nn.compact
  def __call__(self, u):
    x = nn.Dense(self.mixer.width, use_bias=False)(u)
    return nn.Dense(1, use_bias=False)(self.mixer(x))


def signals(step, rows=16):
  """Returns smooth noise, and the same DELAY tokens late."""
  noise = np.random.default_rng(step).normal(size=(rows, LENGTH // 2 + 1)) * (np.arange(LENGTH // 2 + 1) < LENGTH // 16)
  u = np.fft.irfft(noise * LENGTH**0.5, LENGTH) * 2
  late = np.pad(u, ((0, 0), (DELAY, 0)))[:, :LENGTH]
  return u[..., None].astype(np.float32), late[..., None].astype(np.float32)


def train(mixer):
  """Returns the trained variables and the loss of every step, relative to the signal's power."""
  model = Echo(mixer)
  params = model.init(jax.random.key(0), jnp.zeros((1, LENGTH, 1)))["params"]
  tx = optimizer.build(params, steps=STEPS, lr=1e-2, warmup=STEPS // 20, slow_lr=0.1)
  params = nn.meta.unbox(params)

  def loss(params, u, late):
    return jnp.mean((model.apply({"params": params}, u) - late) ** 2) / jnp.mean(late**2)

  @jax.jit
  def update(params, opt, u, late):
    value, gradient = jax.value_and_grad(loss)(params, u, late)
    change, opt = tx.update(gradient, opt, params)
    return jax.tree.map(jnp.add, params, change), opt, value

  opt, losses = tx.init(params), []
  for step in range(STEPS):
    params, opt, value = update(params, opt, *signals(step))
    losses.append(float(value))
  return model, {"params": params}, losses


spectra = {
  "S4, LegS": S4(width=16, state=32, activation="none"),
  "S4, Fourier": S4(width=16, state=32, A_init="fout", activation="none"),
  "S4D, LegS": S4D(width=16, state=32, activation="none"),
  "S4D, real": S4D(width=16, state=32, A_init="real", activation="none"),
}
if SMALL:
  spectra = {"S4, LegS": spectra["S4, LegS"]}
trained = {name: train(mixer) for name, mixer in spectra.items()}
for name, (_, _, losses) in trained.items():
  print(f"{name:12} error {100 * np.mean(losses[-20:]):6.2f} % of the signal's power")

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for name, (model, variables, losses) in trained.items():
  left.semilogy(losses, label=name, linewidth=1)
  unit = jnp.zeros((1, LENGTH, 1)).at[:, 0].set(1.0)
  right.plot(model.apply(variables, unit)[0, :, 0], label=name, linewidth=1)
right.axvline(DELAY, color="0.6", linestyle=":")
left.set(title="error", xlabel="step", ylim=(None, 3))
right.set(title="what each has learned: its kernel", xlabel="lag / tokens")
left.legend(fontsize=8)

# %% [markdown]
# The signal has no high frequencies, so the kernel needs to be right only for low ones: a bump at the dotted line.
# The spectra with imaginary parts find it, as sums of waves that agree there and cancel elsewhere. Real exponentials
# can only fade, and a sum of fading curves cannot be small, then large, then small.
#
# ## 6. Used: one token at a time
#
# The trained layer is a stream processor as it stands: its state is `width × state` numbers, however long the stream.
# A mixer's `prefill` goes on from any state, `step` reads one token; both give what `__call__` gives.

# %%
model, variables, _ = trained["S4, LegS"]
mixer, params = model.mixer, {"params": variables["params"]["mixer"]}
x = jnp.asarray(rng.normal(size=(1, 3 * LENGTH, 16)), jnp.float32)
whole = mixer.apply(params, x)
y, state = jax.jit(lambda x, state: mixer.apply(params, x, state, method="prefill"))(
  x[:, :LENGTH], mixer.init_state(1, 3 * LENGTH)
)
step = jax.jit(lambda x, state: mixer.apply(params, x, state, method="step"))
streamed = [y]
for t in range(LENGTH, LENGTH + 50):
  y, state = step(x[:, t], state)
  streamed.append(y[:, None])
gap = jnp.abs(jnp.concatenate(streamed, axis=1) - whole[:, : LENGTH + 50]).max() / jnp.abs(whole).max()
assert gap < 1e-4, f"the stream left the convolution: {gap}"
print(f"state: {state.h.size} numbers; streamed and parallel outputs differ by {gap:.1e} of the largest")

# %% [markdown]
# ## Where to go on
#
# * `ssm/lti/s4.py` is the layer, `ssm/lti/dplr.py` the algebra of this page, `tests/mixers/s4.py` its tests, among
#   them that the authors' own numbers come out.
# * S4D keeps the diagonal alone, S5 makes one system of all channels and scans it, LRU starts from a ring, and Mamba
#   lets the token choose `dt`, B and C: [all state spaces](../ssm.md).
# * `./dev run --config configs/smnist.py:mixer=s4 --workdir runs/s4` trains S4 on a real task.
