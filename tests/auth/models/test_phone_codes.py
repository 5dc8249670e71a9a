import re
from collections import Counter
from datetime import UTC, datetime, timedelta

from services.auth.models.phone_codes import PhoneCode, new_code, new_nonce

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LIFE = timedelta(minutes=10)


def phone_code() -> PhoneCode:
    return PhoneCode.send(
        id="phonecode_1", nonce_hash="n", code_hash="c", phone_number="+41791234567", life=LIFE, at=NOW
    )


def test_codes_have_six_digits_of_which_none_is_rarer_than_others() -> None:
    codes = [new_code() for _ in range(5_000)]
    assert all(re.fullmatch(r"[0-9]{6}", code) for code in codes)
    for place in range(6):
        counts = Counter(code[place] for code in codes)
        # 500 of each are expected, with a standard deviation of 21.
        assert len(counts) == 10
        assert all(350 < count < 650 for count in counts.values())


def test_nonces_have_32_hex_characters_and_never_repeat() -> None:
    nonces = {new_nonce() for _ in range(1_000)}
    assert len(nonces) == 1_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", nonce) for nonce in nonces)


def test_a_code_is_open_until_its_last_moment() -> None:
    code = phone_code()
    assert code.is_open(most_wrong=5, at=NOW)
    assert code.is_open(most_wrong=5, at=NOW + LIFE - timedelta(milliseconds=1))
    assert not code.is_open(most_wrong=5, at=NOW + LIFE)


def test_a_used_code_is_open_no_longer() -> None:
    assert not phone_code().use(at=NOW).is_open(most_wrong=5, at=NOW)


def test_five_wrong_codes_void_it() -> None:
    code = phone_code()
    for _ in range(4):
        code = code.count_wrong()
    assert code.is_open(most_wrong=5, at=NOW)
    assert not code.count_wrong().is_open(most_wrong=5, at=NOW)
