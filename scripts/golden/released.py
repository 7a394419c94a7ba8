"""Makes the tiny released models of tests/golden/hf with the library transformers, and records what they compute.

  python -m scripts.golden.released [NAME …]

Needs torch and transformers, which the project itself does not. Every weight is drawn away from its initial value. A
folder holds config.json and model.safetensors as transformers writes them, and reference.npz: input_ids_N and logits_N
for N of 37 and 128, loss_37, and gen_prompt with gen_logits_full, the logits of the full forward at a greedy
continuation of 16 tokens, which uses no cache.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "hf"
VOCAB, PROMPT, NEW = 53, 12, 16
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

# folder -> model type, class of the causal model, arguments of its configuration
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
  "gpt2": (
    *("gpt2", "GPT2LMHeadModel"),
    dict(n_embd=24, n_layer=2, n_head=3, n_inner=56, n_positions=160, layer_norm_epsilon=2e-5),
  ),
}


def draw(model: Any, seed: int) -> None:
  """Draws all weights: matrices by their fan-in, vectors around their initial values."""
  import torch

  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, tensor in sorted(model.state_dict().items()):
      if not tensor.is_floating_point():
        continue
      noise = torch.randn(tensor.shape, generator=generator)
      is_matrix = tensor.ndim >= 2 and not name.endswith(("A_log", "bias", "D"))
      if "embed" in name or "wte" in name or "wpe" in name:
        tensor.copy_(noise)
      elif is_matrix:
        tensor.copy_(noise * tensor[0].numel() ** -0.5)
      else:
        tensor.add_(0.3 * noise)


def record(name: str) -> None:
  """Writes the folder of one model."""
  import torch
  import transformers

  kind, cls, options = MODELS[name]
  folder = FOLDER / name
  shutil.rmtree(folder, ignore_errors=True)
  config_class = type(transformers.AutoConfig.for_model(kind))
  config = config_class(**TOKENS, **options)
  config._attn_implementation = "eager"
  torch.manual_seed(0)
  model = getattr(transformers, cls)(config).float().eval()
  draw(model, seed=len(name))
  model.save_pretrained(folder)
  rng = np.random.default_rng(len(name))
  numbers: dict[str, np.ndarray] = {}

  def logits(tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
      return model(torch.tensor(tokens, dtype=torch.long), use_cache=False).logits.float().numpy()

  for length in (37, 128):
    tokens = rng.integers(3, VOCAB, (1, length)).astype(np.int32)
    numbers |= {f"input_ids_{length}": tokens, f"logits_{length}": logits(tokens)}
  ids = torch.tensor(numbers["input_ids_37"], dtype=torch.long)
  with torch.no_grad():
    numbers["loss_37"] = model(ids, labels=ids, use_cache=False).loss.float().numpy()
  tokens = prompt = numbers["input_ids_37"][:, :PROMPT]
  for _ in range(NEW):
    tokens = np.concatenate([tokens, logits(tokens)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
  numbers |= {"gen_prompt": prompt, "gen_logits_full": logits(tokens)[:, PROMPT - 1 : -1]}
  np.savez_compressed(folder / "reference.npz", **numbers)
  for path in folder.iterdir():
    if path.name not in ("config.json", "model.safetensors", "reference.npz"):
      path.unlink()
  about(transformers.__version__, torch.__version__)
  size = sum(path.stat().st_size for path in folder.iterdir())
  print(f"{name}: {size / 1e3:.0f} kB, largest logit {np.abs(numbers['logits_128']).max():.1f}", flush=True)


def about(library: str, torch_version: str) -> None:
  """Writes down of which versions the numbers are."""
  path = FOLDER / "about.json"
  facts = json.loads(path.read_text()) if path.exists() else {}
  facts |= {"script": "scripts/golden/released.py", "transformers": library, "torch": torch_version}
  facts |= {"how": "CPU, float32, eager attention, weights drawn at random"}
  path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
  for each in sys.argv[1:] or MODELS:
    record(each)
