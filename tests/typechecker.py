"""What checks shape annotations under test: beartype, with int accepted where float is asked for (as in PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
