from shared.errors import IdempotencyKeyReused, Kind, NotFound, Refusal, Unavailable, Unknown


class TrialAlreadyUsed(Refusal, kind=Kind.CONFLICT):
    pass


class HTTPServerGone(Refusal, code="server_gone"):
    pass


def test_the_code_is_the_class_name_in_snake_case() -> None:
    assert TrialAlreadyUsed.code == "trial_already_used"
    assert [refusal.code for refusal in (NotFound, Unavailable, IdempotencyKeyReused, Unknown)] == [
        "not_found",
        "unavailable",
        "idempotency_key_reused",
        "unknown",
    ]


def test_a_declared_code_replaces_the_class_name() -> None:
    assert HTTPServerGone().body() == {"code": "server_gone"}


def test_a_subclass_has_its_own_code_and_its_parents_kind() -> None:
    class TrialOfTheSameDevice(TrialAlreadyUsed):
        pass

    assert TrialOfTheSameDevice.code == "trial_of_the_same_device"
    assert TrialOfTheSameDevice.kind is Kind.CONFLICT


def test_the_body_has_meta_and_reasons_only_if_there_are_any() -> None:
    assert TrialAlreadyUsed().body() == {"code": "trial_already_used"}
    nested = TrialAlreadyUsed(reasons=(NotFound(what="device"), NotFound()), since=3)
    assert nested.body() == {
        "code": "trial_already_used",
        "meta": {"since": 3},
        "reasons": [{"code": "not_found", "meta": {"what": "device"}}, {"code": "not_found"}],
    }
