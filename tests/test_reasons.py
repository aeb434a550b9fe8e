import re

import pytest

from mlflow_unlearn import reasons
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis


def test_every_basis_has_grounds_and_each_ground_is_a_code():
    assert reasons.GROUNDS.keys() == set(Basis)
    assert all(re.fullmatch(r"[a-z0-9_]{3,24}", ground) for ground in reasons.every_ground())


@pytest.mark.parametrize("codes", [reasons.APPROVALS, reasons.OVERRIDES, reasons.REVOCATIONS])
def test_what_is_signed_has_codes_too(codes):
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]{3,24}", code) for code in codes)


def test_every_ground_is_listed_once():
    listed = reasons.every_ground()
    assert len(listed) == len(set(listed))
    assert set(listed) == set().union(*reasons.GROUNDS.values())


def test_another_word_is_refused_without_repeating_it():
    with pytest.raises(LedgerError, match=r"^request pause: expected one of identity_check; the ledger takes no free text$"):
        reasons.refuse_other("Ana is on holiday", reasons.PAUSES, "request pause")
