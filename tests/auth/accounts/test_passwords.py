import asyncio
import time

import argon2
import pytest
from argon2 import Parameters, extract_parameters
from argon2.exceptions import InvalidHashError
from argon2.profiles import CHEAPEST, RFC_9106_LOW_MEMORY

from services.auth.accounts.hash_queue import HashCaller
from services.auth.accounts.passwords import (
    PasswordHasher,
    PasswordRule,
    known_passwords,
    normal_password,
    unmatchable_hash,
)
from shared.messages.auth.errors import FieldRefused

PASSWORD = "a long sentence is easy to keep"
CALLER = HashCaller()


def cheap_hasher(**changed: object) -> PasswordHasher:
    options = {"threads": 2, "max_wait": 5.0, "old_clients": False, "parameters": CHEAPEST, **changed}
    return PasswordHasher(**options)  # type: ignore[arg-type]


@pytest.fixture
async def passwords() -> PasswordHasher:
    return cheap_hasher()


async def test_only_the_right_password_is_verified(passwords: PasswordHasher) -> None:
    password_hash = await passwords.hash_new(PASSWORD, CALLER)
    assert PASSWORD not in password_hash
    assert await passwords.verify(PASSWORD, password_hash, CALLER)
    for wrong in (PASSWORD + " ", PASSWORD.upper(), "", "x"):
        assert not await passwords.verify(wrong, password_hash, CALLER)
    await passwords.aclose()


async def test_unknown_account_has_no_password(passwords: PasswordHasher) -> None:
    assert not await passwords.verify(PASSWORD, None, CALLER)
    assert not await passwords.verify("", None, CALLER)


async def test_equal_passwords_have_different_hashes(passwords: PasswordHasher) -> None:
    assert await passwords.hash_new(PASSWORD, CALLER) != await passwords.hash_new(PASSWORD, CALLER)


async def test_default_parameters_are_the_low_memory_ones_of_rfc_9106() -> None:
    passwords = PasswordHasher(threads=1, max_wait=5.0, old_clients=False)
    password_hash = await passwords.hash_new(PASSWORD, CALLER)
    assert password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not passwords.needs_rehash(password_hash)
    await passwords.aclose()


def test_unmatchable_hash_has_the_same_cost() -> None:
    for parameters in (RFC_9106_LOW_MEMORY, CHEAPEST):
        real = argon2.PasswordHasher.from_parameters(parameters).hash("x")
        unmatchable = unmatchable_hash(parameters)
        assert extract_parameters(unmatchable) == extract_parameters(real) == parameters
        assert len(unmatchable) == len(real)


async def test_hash_with_old_parameters_is_verified_and_needs_a_rehash(passwords: PasswordHasher) -> None:
    password_hash = await passwords.hash_new(PASSWORD, CALLER)
    costlier = cheap_hasher(
        parameters=Parameters(
            type=CHEAPEST.type, version=19, salt_len=16, hash_len=32, time_cost=2, memory_cost=16, parallelism=1
        )
    )
    assert costlier.needs_rehash(password_hash)
    assert await costlier.verify(PASSWORD, password_hash, CALLER)
    assert not costlier.needs_rehash(await costlier.rehash(PASSWORD, CALLER))


async def test_known_password_can_be_rehashed_but_not_chosen(passwords: PasswordHasher) -> None:
    assert await passwords.verify("123456", await passwords.rehash("123456", CALLER), CALLER)
    with pytest.raises(FieldRefused):
        await passwords.hash_new("1234567890", CALLER)


async def test_malformed_hash_is_an_error(passwords: PasswordHasher) -> None:
    with pytest.raises(InvalidHashError):
        await passwords.verify(PASSWORD, "not a hash", CALLER)


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.slow)])
async def test_hashes_do_not_block_the_event_loop(count: int) -> None:
    passwords = PasswordHasher(threads=2, max_wait=600.0, old_clients=False)
    password_hash = await passwords.hash_new(PASSWORD, CALLER)
    lags: list[float] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - began - 0.005)

    watching = asyncio.create_task(watch())
    assert all(await asyncio.gather(*(passwords.verify(PASSWORD, password_hash, CALLER) for _ in range(count))))
    done.set()
    await watching
    await passwords.aclose()

    # A hash on the event loop would take at least 100 ms; the bound leaves room for other load.
    lags.sort()
    assert len(lags) > 2 * count
    assert lags[len(lags) * 9 // 10] < 0.05


def test_package_contains_10000_known_passwords() -> None:
    known = known_passwords()
    assert len(known) == 10_000
    assert {"password", "12345678", "qwertyuiop", "bond007"} <= known
    assert all(each == each.lower() for each in known)
    assert not any(each.startswith("# ") for each in known)


RULE = PasswordRule(frozenset({"password", "bond007"}), old_clients=False)


OLD_CLIENTS_RULE = PasswordRule(RULE.known, old_clients=True)


@pytest.mark.parametrize("password", ["8 is few", "x" * 255, "пароль-это-он", "  spaces "])
def test_8_to_255_characters_of_any_kind_are_accepted(password: str) -> None:
    RULE.check(normal_password(password))


@pytest.mark.parametrize("password", ["", "seven77", "bond007", "pässwö"])
def test_fewer_than_8_characters_are_refused(password: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        RULE.check(normal_password(password))
    assert refused.value.code == "validation_failed"
    assert refused.value.meta["errors"] == [{"path": "password", "message": "at least 8 characters"}]


@pytest.mark.parametrize("password", ["password", "PassWord", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44"])
def test_known_password_is_refused_in_any_spelling(password: str) -> None:
    for rule in (RULE, OLD_CLIENTS_RULE):
        with pytest.raises(FieldRefused):
            rule.check(normal_password(password))


@pytest.mark.parametrize("password", ["bond007", "sixsix"])
def test_old_clients_may_choose_6_or_7_characters(password: str) -> None:
    OLD_CLIENTS_RULE.check(normal_password(password))


def test_5_characters_are_refused_for_old_clients() -> None:
    with pytest.raises(FieldRefused):
        OLD_CLIENTS_RULE.check("fifth")


def test_composed_and_decomposed_characters_are_equal() -> None:
    assert normal_password("e\u0301galite\u0301") == normal_password("\u00e9galit\u00e9")


@pytest.mark.parametrize("password", ["x" * 256, "x" * 1_000_000, "\ufdfa" * 200])
def test_more_than_255_characters_in_normal_form_are_refused(password: str) -> None:
    with pytest.raises(FieldRefused):
        normal_password(password)


def test_refusal_does_not_contain_the_password() -> None:
    with pytest.raises(FieldRefused) as refused:
        RULE.check("password")
    assert "'password'" not in str(refused.value.body()["meta"]["errors"][0]["message"])
