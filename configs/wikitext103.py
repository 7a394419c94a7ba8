"""WikiText-103 as bytes or GPT-2's tokens, by Hyena (arXiv:2302.10866), or as words, by S4 (arXiv:2111.00396).

Published word perplexities of the test part (quoted from memory): with GPT-2's tokens Transformer 18.6, hybrid H3 18.5,
Hyena 18.6 (Poli et al. 2023, tab. 4.3); with words S4 20.95, Transformer 20.51 (Gu et al. 2022, tab. 8). `setting`:

* bytes: safari's Hyena of 12 layers and width 768, rate 6e-4, decay 0.1, warm-up 1 %, cosine to a tenth, clip 1, half
  a million tokens an update; 86 million parameters. Departs: bytes for tokens, four times as many a row.
* gpt2: the same with rows of 1,024 of GPT-2's tokens, 512 an update, 100 epochs of some 118 million; 124 million.
* words: the S4 repository's (e757cef, configs/experiment/lm/s4-wt103.yaml): 16 times two S4 and an MLP, width 1,024,
  dropout 0.25, rate 5e-4 for all, decay 0.1, 800,000 steps, eight rows of 8,192 words; adaptive embedding and softmax
  of 267,735 words with cutoffs 19,997, 39,997 and 199,997, widths a quarter each, dropout 0.25 in both. 243 million
  parameters, published 249. Departs: the read-out's biases start at 0 and its map for frequent words does not, where
  theirs start the other way round. Of fewer words, `embed.cutoffs=(1000,4000)` sets other clusters.
* words_one_table: the same with one table of all words for embedding and read-out; 478 million.

Tokens are made first; `dir` is then their folder. Of words, `words.json` is a tokenizer of the library `tokenizers`:
every word and line's end of the training part that stands between spaces.

  ./dev python -c "import tokenizers as t; w = t.Tokenizer(t.models.WordLevel(unk_token='<unk>')); \
    w.pre_tokenizer = t.pre_tokenizers.Split(' ', 'removed'); w.decoder = t.decoders.WordPiece(); \
    special = t.trainers.WordLevelTrainer(vocab_size=10**6, special_tokens=['<unk>', '<eos>']); \
    w.train(['DIR/wiki.train.tokens'], special); w.save('words.json')"
  ./dev tokenize --config configs/wikitext103.py:dir=DIR --tokenizer words.json --out tokens/words
  python main.py --config configs/wikitext103.py:setting=words,dir=tokens/words --workdir runs/wikitext103_words
  python main.py --config configs/wikitext103.py:dir=DIR --workdir runs/wikitext103
  python main.py --config configs/wikitext103.py:dir=DIR,mixer=mamba,depth=24 --workdir runs/wikitext103_mamba

The word perplexity is exp(ln 2 · bits per byte · bytes of the test file / 245,569 words) in every setting. `python -m
data.prepare wikitext_103 --from DIR` counts the words of the published files. Cost: days on one GPU; not run here.
"""

from ml_collections import ConfigDict

from configs import base, grammar, text

FILES = {"files": "wiki.train.tokens", "validation_files": "wiki.valid.tokens", "test_files": "wiki.test.tokens"}
# rows an update, tokens of a row, updates
SIZES = {"bytes": (128, 4096, 100_000), "gpt2": (512, 1024, 22_500), "words": (8, 8192, 800_000)}
SIZES["words_one_table"] = SIZES["words"]
# the first word of each cluster but the first
CUTOFFS = (19_997, 39_997, 199_997)


def get_config(arg: str = "") -> ConfigDict:
  """`setting`, `dir`, mixer and sizes by argument."""
  setting, arg = grammar.take(arg, "setting", SIZES)
  batch, length, steps = SIZES[setting]
  c = base.defaults()
  o, body = c.optimizer, c.model.body
  c.steps, o.weight_decay = steps, 0.1
  sizes = {"batch": batch, "length": length}
  if setting == "bytes":
    c.data = ConfigDict(base.text_section(name="text_file", **sizes, **text.SECTIONS["text_file"] | FILES))
  else:
    c.data = ConfigDict(base.text_section(name="tokens", vocab=0, dir="", blend=(), **sizes))
  mlp = {"name": "mlp", "expand": 4}
  if setting.startswith("words"):
    c.model.width, body.pattern, body.depth = 1024, "mm-", 48
    body.letters = ConfigDict({"m": {"name": "s4", "state": 64, "copies": 1}, "-": mlp | {"activation": "gelu"}})
    body.branch = ConfigDict({"norm": {"name": "layer"}, "dropout": 0.25})
    c.model.head.chunk = 512
    o.lr, o.warmup, o.b2, o.clip = 5e-4, 1000, 0.999, 0.0
    if setting == "words":
      drop = {"dropout": 0.25}
      c.model.embed = ConfigDict({"name": "adaptive", "cutoffs": CUTOFFS, "start": 0.5, "scale": 32.0, **drop})
      c.model.head = ConfigDict({"name": "adaptive_softmax", "chunk": 512, **drop})
  else:
    c.model.width, body.pattern, body.depth = 768, "m-", 24
    body.letters = ConfigDict({"m": {"name": "hyena", "max_len": length, "features": 33, "frequency": 14.0}, "-": mlp})
    o.lr, o.warmup, o.final_lr = 6e-4, steps // 100, 0.1
  c.eval.every = c.save.every = 1000
  c.generate.prompt = " = "
  return base.parse(c, arg)
