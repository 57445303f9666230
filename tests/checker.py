"""The run-time checker of annotations in the tests: beartype, with ints welcome where floats are."""

from beartype import BeartypeConf
from beartype import beartype as _beartype

beartype = _beartype(conf=BeartypeConf(is_pep484_tower=True))
