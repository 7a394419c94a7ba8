"""Claims of the literature about speed and memory, the published ratio in the name of each group beside the measured.

All were published for GPUs, at sizes that would take hours on a CPU; the sizes here are in the groups' names and made
for ten minutes on two cores. A ratio of one device says little about another: what can be compared is how it grows with
length or state. "Ours" is what the claim is in favour of, so that a ratio above 1 agrees with it; temporary memory is
XLA's plan. Published numbers are quoted from the papers' tables, those marked ~ read off figures.

  S4            Gu et al. 2022, arXiv:2111.00396, tabs. 2, 3 and 8
  Mamba         Gu & Dao 2023, arXiv:2312.00752, sec. 4.5
  Mamba-2       Dao & Gu 2024, arXiv:2405.21060, abstract and sec. 9.3
  Vim           Zhu et al. 2024, arXiv:2401.09417, abstract
  HyenaDNA      Nguyen et al. 2023, arXiv:2306.15794, abstract
  Jamba         Lieber et al. 2024, arXiv:2403.19887, tab. 1
"""

import functools
from typing import Any

from hybrids import recipes
from hybrids.model import build_model
from hybrids.recipes import mamba, transformer
from hybrids.recipes.recipe import Recipe, language_model
from inference import count
from scripts.benchmarks import decode, mixers, small
from scripts.benchmarks.case import Case, Timed

# width and state -> the published step of LSSL over that of S4, and the memory
LSSL = {64: "", 128: "1.9x, memory 42x", 256: "6.7x, memory 133x"}
LINEAR = {
  1024: "1.58x, memory 1/0.43; Performer 1.23x and 1/0.43, linear attention 1.58x and 1/0.37",
  4096: "5.19x, memory 1/0.091; Performer 3.79x and 1/0.086, linear attention 5.35x and 1/0.067",
}
PATCHES = (1248 // 16) ** 2
CONTEXT = 262_144


def cases() -> list[Case]:
  """Returns the cases of every claim."""
  return [*layers(), *generation(), *caches()]


def layers() -> list[Case]:
  """Claims about one layer, trained or read forward."""
  rows = []
  for width, published in LSSL.items():
    said = f"LSSL/S4 {published}" if published else "no such size is published"
    fields = dict(state=width)
    label = f"S4 against LSSL at state = width: {said}"
    rows += beside(label, (1, 1024, width), {"s4": fields, "lssl": fields}, "forward+backward")
  for length, published in LINEAR.items():
    names: dict[str, dict[str, Any]] = dict.fromkeys(("s4", "softmax", "performer", "linear_transformer"), {})
    label = f"S4 and linear attention against a Transformer: {published}"
    rows += beside(label, (1, length, 128), names, "forward+backward")
  for length in (2048, 8192):
    names = {"mamba2": dict(state=64), "mamba": dict(state=64)}
    rows += beside("Mamba-2 against Mamba at state 64: 2x to 8x", (1, length, 256), names, "forward+backward")
  image: dict[str, dict[str, Any]] = {
    "bidirectional": dict(mixer=dict(name="mamba")),
    "softmax": dict(mask="full", heads=3),
  }
  label = f"Vim-T against DeiT-T, a layer on {PATCHES} patches of 1248 by 1248 pixels: 2.8x, memory 1/0.132"
  rows += beside(label, (1, PATCHES, 192), image, "forward")
  for length in (4096, 16384):
    names = {"hyena": dict(max_len=length), "softmax": dict(heads=1)}
    rows += beside("HyenaDNA against attention: 160x at a million bases", (1, length, 64), names, "forward")
  return rows


def beside(label: str, size: tuple[int, int, int], names: dict[str, dict[str, Any]], what: str) -> list[Case]:
  """Returns the cases of one group; the first is what the claim favours."""
  found = [case for name, fields in names.items() for case in mixers.ours(name, label, size, **fields)]
  found = [case for case in found if case.group.endswith(f", {what}")]
  peers = [case._replace(name=case.name.removeprefix("ours (").removesuffix(")")) for case in found[1:]]
  return [*found[:1], *peers]


def generation() -> list[Case]:
  """Claims about generation: one token after another, after contexts of several lengths."""
  s4 = language_model(
    width=small.WIDTH,
    pattern="m-",
    depth=8,
    letters={"m": dict(name="s4", state=64), "-": dict(name="mlp", expand=2)},
    norm="layer",
  )
  attention = Recipe(transformer.llama, small.SIZES | small.ATTENTION, vocab=small.VOCAB)
  ours = {
    "S4": Recipe(lambda: s4, {}, vocab=small.VOCAB),
    "Mamba": Recipe(mamba.model, small.SIZES, vocab=small.VOCAB),
  }
  rows = []
  for kind, batch, context, published in (
    ("S4", 4, 1024, "60x, the Transformer without a cache"),
    ("Mamba", 4, 2048, "5x"),
    ("Mamba", 4, 16384, "~15x"),
  ):
    group = f"{kind} against a Transformer, generation, batch {batch}, context {context}: {published}"
    shape = dict(batch=batch, context=context, tokens=16)
    for name, recipe in ((f"ours ({kind})", ours[kind]), ("Transformer with a cache", attention)):
      rows.append(Case(group, name, functools.partial(decode.decode_of, small.build(recipe), **shape)))
  return rows


def caches() -> list[Case]:
  """Returns the bytes of a state, which are counted and not run: times in this group mean nothing."""
  group = f"cache of {CONTEXT} tokens in float32, counted; in 16 bits Jamba 4 GiB, Llama-2 7B 128 GiB (temp MiB)"
  names = {"ours (jamba_v0.1)": "jamba_v0.1", "llama_7b": "llama_7b"}
  return [Case(group, name, functools.partial(cache, recipe)) for name, recipe in names.items()]


def cache(name: str) -> Timed:
  """Returns the state of a published model, from its shapes."""
  recipe = recipes.get_recipe(name)
  model = build_model(recipe, **{**recipe.model, "max_len": CONTEXT})
  return Timed(lambda: None, temp_mib=count.state_bytes(model, CONTEXT) / 2**20)
