"""The type checker behind the import hook: beartype, taking an int where a float is annotated, as PEP 484 does."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
