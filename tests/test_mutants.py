"""The sabotage of `python -m tests.mutants` still finds what it is to break."""

import pytest

from tests import mutants


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_the_text_of_every_mutant_is_there(name):
    mutants.check_texts([(name, *mutant) for mutant in mutants.MUTANTS[name]])
