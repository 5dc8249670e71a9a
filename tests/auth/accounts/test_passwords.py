import asyncio
import os
import threading
import time

import pytest
from argon2 import Parameters, PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError
from argon2.profiles import CHEAPEST, RFC_9106_LOW_MEMORY

from services.auth.accounts.passwords import (
    NICENESS,
    USUAL_SECONDS,
    PasswordRule,
    Passwords,
    known_passwords,
    nobodys_hash,
    normal,
)
from shared.errors import Unavailable
from shared.messages.auth.errors import FieldRefused
from tests.stack import eventually

PASSWORD = "a long sentence is easy to keep"


def cheap(**changed: object) -> Passwords:
    options = {"threads": 2, "longest_wait": 5.0, "old_clients": False, "parameters": CHEAPEST, **changed}
    return Passwords(**options)  # type: ignore[arg-type]


@pytest.fixture
async def passwords() -> Passwords:
    return cheap()


async def test_a_password_is_recognised_and_no_other(passwords: Passwords) -> None:
    kept = await passwords.hash_new(PASSWORD)
    assert PASSWORD not in kept
    assert await passwords.recognise(PASSWORD, kept)
    for wrong in (PASSWORD + " ", PASSWORD.upper(), "", "x"):
        assert not await passwords.recognise(wrong, kept)
    await passwords.aclose()


async def test_nobody_has_any_password(passwords: Passwords) -> None:
    assert not await passwords.recognise(PASSWORD, None)
    assert not await passwords.recognise("", None)


async def test_two_people_with_one_password_are_not_seen_to_share_it(passwords: Passwords) -> None:
    assert await passwords.hash_new(PASSWORD) != await passwords.hash_new(PASSWORD)


async def test_the_usual_parameters_are_the_low_memory_ones_of_rfc_9106() -> None:
    passwords = Passwords(threads=1, longest_wait=5.0, old_clients=False)
    kept = await passwords.hash_new(PASSWORD)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not passwords.outdated(kept)
    await passwords.aclose()


def test_nobodys_hash_costs_what_a_real_one_costs() -> None:
    for parameters in (RFC_9106_LOW_MEMORY, CHEAPEST):
        real = PasswordHasher.from_parameters(parameters).hash("x")
        invented = nobodys_hash(parameters)
        assert extract_parameters(invented) == extract_parameters(real) == parameters
        assert len(invented) == len(real)


async def test_hashes_of_cheaper_times_are_outdated_and_still_good(passwords: Passwords) -> None:
    kept = await passwords.hash_new(PASSWORD)
    costlier = cheap(
        parameters=Parameters(
            type=CHEAPEST.type, version=19, salt_len=16, hash_len=32, time_cost=2, memory_cost=16, parallelism=1
        )
    )
    assert costlier.outdated(kept)
    assert await costlier.recognise(PASSWORD, kept)
    assert not costlier.outdated(await costlier.hash_again(PASSWORD))


async def test_a_password_of_long_ago_is_hashed_again_though_it_is_known_by_now(passwords: Passwords) -> None:
    assert await passwords.recognise("123456", await passwords.hash_again("123456"))
    with pytest.raises(FieldRefused):
        await passwords.hash_new("1234567890")


async def test_what_we_have_not_written_is_a_fault_and_no_wrong_password(passwords: Passwords) -> None:
    with pytest.raises(InvalidHashError):
        await passwords.recognise(PASSWORD, "not a hash")


async def test_whoever_would_wait_too_long_is_told_when_to_come_back() -> None:
    passwords = cheap(threads=1, longest_wait=2.5 * USUAL_SECONDS)
    gate = threading.Event()
    blocking = [asyncio.create_task(passwords._aside(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable) as refused:
        await passwords.recognise(PASSWORD, None)

    assert refused.value.meta["retry_after"] >= 1
    gate.set()
    await asyncio.gather(*blocking)
    await eventually(lambda: passwords._under_way == 0)
    assert not await passwords.recognise(PASSWORD, None)
    await passwords.aclose()


async def test_who_stops_waiting_keeps_a_place_until_the_thread_is_done() -> None:
    passwords = cheap(threads=1, longest_wait=USUAL_SECONDS / 2)
    gate = threading.Event()
    waiting = asyncio.create_task(passwords._aside(gate.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(Unavailable):
        await passwords.recognise(PASSWORD, None)
    gate.set()
    await eventually(lambda: passwords._under_way == 0)
    await passwords.aclose()


async def test_hashing_threads_let_the_event_loop_go_first() -> None:
    passwords = cheap()

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await passwords._aside(niceness) == min(niceness() + NICENESS, 19)
    await passwords.aclose()


async def test_how_long_one_waits_is_learnt_from_how_long_it_took() -> None:
    passwords = cheap(threads=1, longest_wait=0.05)
    for _ in range(50):
        await passwords.recognise(PASSWORD, None)
    await eventually(lambda: passwords._under_way == 0)
    # By the usual time the second would wait too long; by that of these cheap ones it does not.
    await asyncio.gather(*(passwords.recognise(PASSWORD, None) for _ in range(3)))
    await passwords.aclose()


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.slow)])
async def test_sign_ins_never_stall_the_event_loop(count: int) -> None:
    passwords = Passwords(threads=2, longest_wait=600.0, old_clients=False)
    kept = await passwords.hash_new(PASSWORD)
    lags: list[float] = []
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - began - 0.005)

    watching = asyncio.create_task(watch())
    assert all(await asyncio.gather(*(passwords.recognise(PASSWORD, kept) for _ in range(count))))
    over.set()
    await watching
    await passwords.aclose()

    # One hash on the loop would be 100 ms and more; other work on this machine may cost a little.
    lags.sort()
    assert len(lags) > 2 * count
    assert lags[len(lags) * 9 // 10] < 0.05


def test_ten_thousand_known_passwords_come_with_the_package() -> None:
    known = known_passwords()
    assert len(known) == 10_000
    assert {"password", "12345678", "qwertyuiop", "bond007"} <= known
    assert all(each == each.lower() for each in known)
    assert not any(each.startswith("# ") for each in known)


RULE = PasswordRule(frozenset({"password", "bond007"}), old_clients=False)


OLD = PasswordRule(RULE.known, old_clients=True)


@pytest.mark.parametrize("password", ["8 is few", "x" * 255, "пароль-это-он", "  spaces "])
def test_eight_to_255_characters_of_any_kind_are_taken(password: str) -> None:
    RULE.judge(normal(password))


@pytest.mark.parametrize("password", ["", "seven77", "bond007", "pässwö"])
def test_fewer_than_eight_are_refused(password: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        RULE.judge(normal(password))
    assert refused.value.code == "validation_failed"
    assert refused.value.meta["errors"] == [{"path": "password", "message": "at least 8 characters"}]


@pytest.mark.parametrize("password", ["password", "PassWord", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44"])
def test_a_known_password_is_refused_however_it_is_written(password: str) -> None:
    for rule in (RULE, OLD):
        with pytest.raises(FieldRefused):
            rule.judge(normal(password))


@pytest.mark.parametrize("password", ["bond007", "sixsix"])
def test_old_clients_may_choose_six_and_seven_characters(password: str) -> None:
    OLD.judge(normal(password))


def test_five_are_too_few_for_old_clients_too() -> None:
    with pytest.raises(FieldRefused):
        OLD.judge("fifth")


def test_what_two_keyboards_write_differently_is_the_same() -> None:
    assert normal("e\u0301galite\u0301") == normal("\u00e9galit\u00e9")


@pytest.mark.parametrize("password", ["x" * 256, "x" * 1_000_000, "\ufdfa" * 200])
def test_more_than_255_characters_are_refused_also_in_the_form_that_counts(password: str) -> None:
    with pytest.raises(FieldRefused):
        normal(password)


def test_a_refusal_does_not_say_what_the_password_was() -> None:
    with pytest.raises(FieldRefused) as refused:
        RULE.judge("password")
    assert "'password'" not in str(refused.value.body()["meta"]["errors"][0]["message"])
