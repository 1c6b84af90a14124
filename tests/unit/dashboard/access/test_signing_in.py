"""Addresses of users who signed in at a provider."""

import pytest

from dashboard.access.signing_in import verified_address


@pytest.mark.parametrize(
    ("said", "good"),
    [({}, True), *(({"email_verified": value}, True) for value in (True, "true", "True")),
     *(({"email_verified": value}, False) for value in (False, "false", "False", "", "no", 0, 1, None, [True]))],
)  # fmt: skip
def test_an_address_that_the_provider_did_not_check_is_nobodys(said, good):
    assert verified_address({"email": "doctor@lab.example", **said}) == ("doctor@lab.example" if good else None)
