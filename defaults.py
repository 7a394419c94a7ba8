"""Defaults of the settings of a run that belong to no class or function of their own.

configs/base.py starts from them, and training/settings.py takes them for keys that a config leaves out.
"""

from typing import Any

RUN: dict[str, Any] = {
  "seed": 0,  # of the parameters
  "log_every": 50,
  "kernels": "auto",
  "wandb": False,
  "init_from": "",
  "init_only": "",
  "mesh": {"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1, "cpu_devices": 0},
  "eval": {"every": 500, "chunk": 0, "batches": 0},
  "save": {"every": 500, "keep": 3, "best": ""},
  "evaluators": {},  # label -> section, any number of them
  "generate": {
    "prompt": "def ",
    "tokens": 256,
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "stop": (),
    "logit_bias": (),  # "TOKEN=VALUE" each
    "seed": 0,
  },
}
