"""Which documents of a text are held out: by their content, so that no copy of a training document is evaluated."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from data.packing import Document
from mistake import Mistake

# held-out documents may exceed the share by this factor
ROOM = 1.1
# a document's first byte is predicted by nothing
SCORED = 2


def hold_out(documents: Sequence[Document], share: float) -> Mapping[str, Sequence[Document]]:
  """Splits documents into 'train' and 'validation', each with something to predict.

  Whole documents are held out with all their copies, in the order of the md5 of their text and leaving out what is too
  large, until they are the share of all bytes: so a document rarely changes sides when others come or go. Where that
  gives clearly less than the share, the rest is the end of every other document.

  Raises:
    Mistake: there is too little text for both.
  """
  copies = Counter(d.text for d in documents)
  sizes = {text: many * len(text) for text, many in copies.items()}
  total = sum(sizes.values())
  want = share * total
  left = sum(size for text, size in sizes.items() if len(text) >= SCORED)
  held: set[bytes] = set()
  achieved = 0
  for text in sorted(sizes, key=lambda text: hashlib.md5(text, usedforsecurity=False).digest()):
    # something to predict stays in training
    if len(text) >= SCORED and achieved < want and achieved + sizes[text] <= ROOM * want and sizes[text] < left:
      held.add(text)
      achieved += sizes[text]
      left -= sizes[text]
  train = [d for d in documents if d.text not in held]
  validation = [d for d in documents if d.text in held]
  if achieved < want / ROOM:
    train, ends = cut(train, (want - achieved) / (total - achieved), must=not held)
    validation += ends
  if not all(any(len(d.text) >= SCORED for d in split) for split in (train, validation)):
    size = f"{len(documents)} documents of {total} bytes"
    raise Mistake(f"{size} are too little to hold out data.validation={share}: use more text or another share")
  return {"train": train, "validation": validation}


def cut(documents: Sequence[Document], share: float, *, must: bool) -> tuple[list[Document], list[Document]]:
  """Returns each document without its last bytes, and those bytes; equal documents are cut alike.

  Args:
    must: at least some bytes come of each, where the share of it is less than one.
  """
  starts, ends = [], []
  for name, text in documents:
    size = round(share * len(text))
    size = max(size, SCORED) if must and len(text) >= 2 * SCORED else size
    starts.append(Document(name, text[: len(text) - size]))
    ends.append(Document(name, text[len(text) - size :]))
  return [d for d in starts if d.text], [d for d in ends if d.text]
