"""What outlives a document or a fax holds codes and words of the trade, and no name."""

import pytest

from vault.domain.certificates import SHRED_REASONS, check_shred_reason, is_kept_reason, trade_words
from vault.domain.faxes import check_facts
from vault.errors import InvalidRequestError

NAMES = ("John Smith", "john", "smith-john", "Müller", "O'Neill", "陳大文", "JOHN.SMITH", "X Æ")


@pytest.mark.parametrize("reason", [*SHRED_REASONS, "C-7", "case#19", "INC/2026-1"])
def test_a_code_or_a_case_is_a_reason(reason: str) -> None:
    """Each code, and the number of a case, is taken as it is."""
    assert check_shred_reason(reason) == reason


@pytest.mark.parametrize(
    "reason", [*NAMES, "", " ", "asked by John", "retention", "a\nb", "x" * 99]
)
def test_words_are_no_reason(reason: str) -> None:
    """Whatever may be a sentence or a name is refused, and the refusal does not repeat it."""
    with pytest.raises(InvalidRequestError) as refused:
        check_shred_reason(reason)
    assert not reason.strip() or reason not in str(refused.value)


def test_the_vaults_own_reasons_stay() -> None:
    """What retention writes stands in the certificate, too."""
    assert is_kept_reason("retention: passport after ported, row id-scans-uk")


@pytest.mark.parametrize(
    "said, kept",
    [
        ("busy", "busy"),
        ("No carrier detected", "No carrier detected"),
        (
            "Busy signal detected; too many attempts to dial",
            "Busy signal detected; too many ... to dial",
        ),
        ("550 5.1.1 <john.smith@acme.test>: User unknown", "550 5.1.1 <...>: User unknown"),
        ("452 4.2.2 John Smith's mailbox is full", "452 4.2.2 ... mailbox is full"),
        ("REJECT: RSPREC error/got DCN (sender abort)", "REJECT: ... error/got DCN (sender abort)"),
    ],
)
def test_what_a_server_says_keeps_the_words_of_the_trade(said: str, kept: str) -> None:
    """Codes and known words stay; whatever else was said becomes three dots."""
    assert trade_words(said) == kept


@pytest.mark.parametrize("name", [name for name in NAMES if name.isascii()])
def test_no_fact_of_a_call_keeps_a_name(name: str) -> None:
    """What names itself is left out, and a name in a message is not repeated."""
    word = "".join(filter(str.isalpha, name))
    said = {"station": name, "message": f"call to {name} failed", "seconds": "42"}
    kept = check_facts(said | {"commid": word, "device": word})
    assert set(kept) == {"message", "seconds"}
    assert name.split("-", maxsplit=1)[0].lower() not in kept["message"].lower()


def test_a_station_that_is_a_number_stays_masked() -> None:
    """The number that a station says of itself is kept without its last digits."""
    assert check_facts({"station": "+44 (20) 7946-0999"}) == {"station": "+442079460***"}


def test_ids_of_a_gateway_stay() -> None:
    """Calls and devices that have a number are kept as they are."""
    ids = {"commid": "000000012", "device": "ttyS0"}
    assert check_facts(ids) == ids
