"""Classifiers of Long Range Arena: a mixer, its sizes by task, and the mean of the outputs before the logits.

A name is that of a mixer and a task: listops (tokens), text (bytes) and image (grey pixels). The Transformers,
softmax attention and nine that approximate or replace it, have a class token in the authors' code; here their logits
are of the mean. Four layers and an MLP of 1,024 are those of that code on ListOps, too (google-research's
long-range-arena at cd31e5c, listops/configs/base_listops_config.py); the paper's text says six and 2,048. What each has
besides heads are its mixer's defaults, and all have the sizes of softmax attention: those of Luna, FNet and
Nyströmformer in their own papers are not known here. Local attention is the sum of one over the last 50 tokens and one
over the next.
Departs: norms are LayerNorm, where S4, S4D, S5 and LRU have batch norm; S4, S4D, LRU and Mega read forwards alone,
where they read both ways. No numbers of parameters are published with these sizes. configs/lra.py has all six tasks.

Source: Tay et al. 2020, arXiv:2011.04006 (Transformers); Gu et al. 2022, arXiv:2111.00396 and 2206.11893 (S4, S4D);
Smith et al. 2023, arXiv:2208.04933 (S5); Orvieto et al. 2023, arXiv:2303.06349 (LRU); Ma et al. 2022, arXiv:2209.10655
(Mega).
"""

from typing import Any

from hybrids.recipes.recipe import Recipe


def model(
  *,
  width: int,
  depth: int,
  mixer: dict[str, Any],
  inner: int | None = None,
  activation: str = "gelu_tanh",
  norm_position: str = "pre",
  position: str = "none",
  features: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a classifier with `depth` layers of a mixer.

  Args:
    mixer: its name and fields.
    inner: channels of an MLP behind each; there is none if not given.
    activation: of that MLP.
    features: whether inputs are features, not tokens.
  """
  mlp = dict(name="mlp", inner=inner, activation=activation, bias=True)
  letters = {"m": mixer} | ({"-": mlp} if inner else {})
  return dict(
    width=width,
    embed=dict(name="features" if features else "tokens", position=position),
    body=dict(
      name="stack",
      pattern="".join(letters),
      depth=len(letters) * depth,
      letters=letters,
      branch=dict(norm=dict(name="layer", eps=1e-5), norm_position=norm_position),
    ),
    head=dict(name="classifier", pool="mean"),
  )


LISTOPS: dict[str, Any] = dict(head="classifier", vocab=18, classes=10, length=2048)
TEXT: dict[str, Any] = dict(head="classifier", vocab=256, classes=2, length=4096)
IMAGE: dict[str, Any] = dict(head="classifier", features=1, classes=10, length=1024)


def s5(state: int, blocks: int, **fields: Any) -> dict[str, Any]:
  """Returns the section of an S5 that reads both ways."""
  return dict(name="s5", state=state, blocks=blocks, bidirectional=True, **fields)


MLP: dict[str, Any] = dict(inner=1024, position="sinusoidal")
# the paper's Transformers that are mixers here, and three that later work adds
TRANSFORMERS: dict[str, dict[str, Any]] = {
  "transformer": dict(name="softmax", mask="full"),
  "linformer": dict(name="linformer"),
  "reformer": dict(name="reformer"),
  "bigbird": dict(name="bigbird"),
  "performer": dict(name="performer", mask="full"),
  "linear_transformer": dict(name="linear_transformer", mask="full"),
  "local": dict(name="local", window=50, position="none", bias="none"),
  "luna": dict(name="luna"),
  "fnet": dict(name="fnet"),
  "nystromformer": dict(name="nystromformer"),
}


def transformer(name: str, heads: int) -> dict[str, Any]:
  """Returns the section of a mixer that reads both ways, with so many heads if it has any."""
  mixer = TRANSFORMERS[name]
  if name == "fnet":
    return mixer
  if name == "local":
    return dict(name="bidirectional", shared=True, mixer=dict(mixer, heads=heads, kv_heads=heads))
  return dict(mixer, heads=heads)


HALF: dict[str, Any] = dict(activation="half_glu2", C_init="lecun_normal")

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "s4_listops": (dict(width=256, depth=6, mixer=dict(name="s4", state=4, copies=1), norm_position="post"), LISTOPS),
  "s4_text": (dict(width=256, depth=6, mixer=dict(name="s4", state=4, copies=1)), TEXT),
  "s4_image": (
    dict(width=512, depth=6, mixer=dict(name="s4", copies=1), norm_position="post", features=True),
    IMAGE,
  ),
  "s4d_listops": (dict(width=256, depth=6, mixer=dict(name="s4d", state=4, copies=1), norm_position="post"), LISTOPS),
  "s4d_image": (
    dict(width=512, depth=6, mixer=dict(name="s4d", copies=1), norm_position="post", features=True),
    IMAGE,
  ),
  "s5_listops": (dict(width=128, depth=8, mixer=s5(16, 8, **HALF)), LISTOPS),
  "s5_text": (dict(width=256, depth=6, mixer=s5(192, 12, **HALF)), TEXT),
  "s5_image": (
    dict(width=512, depth=6, mixer=s5(384, 3, C_init="lecun_normal", clip_eigs=True), features=True),
    IMAGE,
  ),
  "lru_listops": (dict(width=256, depth=4, mixer=dict(name="lru", state=128)), LISTOPS),
  "mega_listops": (
    dict(width=80, depth=6, mixer=dict(name="mega", inner=160), inner=160, activation="silu", norm_position="post"),
    LISTOPS,
  ),
  **{
    f"{name}_{task}": (dict(MLP, width=64 * heads, depth=4, mixer=transformer(name, heads)), sizes)
    for name in TRANSFORMERS
    for task, heads, sizes in (("listops", 8, LISTOPS), ("text", 4, TEXT))
  },
}

RECIPES = {
  **{f"lra_{name}": Recipe(model, fields, **task) for name, (fields, task) in SIZES.items()},
  "lra_toy": Recipe(
    model,
    dict(width=8, depth=2, mixer=s5(4, 2), features=True),
    head="classifier",
    features=1,
    classes=3,
    length=16,
  ),
}
