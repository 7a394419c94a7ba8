"""Makes the tokenizer of tests/golden/hf/jamba: 53 tokens, learned from the pages of docs/, of small letters alone.

./dev python -m scripts.golden.tokenizer FOLDER
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY, CHARACTERS = 53, 44


def main(folder: Path) -> None:
  """Writes `tokenizer.json` into the folder of a released model."""
  tokenizer = Tokenizer(models.BPE(unk_token="?"))
  tokenizer.normalizer = normalizers.Lowercase()
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
  tokenizer.decoder = decoders.Metaspace()
  trainer = trainers.BpeTrainer(
    vocab_size=VOCABULARY, special_tokens=["?"], limit_alphabet=CHARACTERS, show_progress=False
  )
  pages = sorted(Path(__file__).parents[2].glob("docs/*.md"))
  tokenizer.train_from_iterator([page.read_text() for page in pages], trainer)
  tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
  main(Path(sys.argv[1]))
