from services.stripe_double.versions import at_version

EVENT = {
    "id": "evt_1",
    "api_version": "2026-10-28.endive",
    "request": {"id": "req_1", "idempotency_key": "k"},
    "account": "acct_1",
    "data": {
        "object": {
            "object": "subscription",
            "collection_method": "charge_automatically",
            "items": {"data": [{"id": "si_1", "current_period_start": 1, "current_period_end": 2}]},
        }
    },
}


def test_an_older_version_has_the_shapes_of_its_time() -> None:
    acacia = at_version(EVENT, "2025-02-24.acacia")
    assert acacia["data"]["object"]["current_period_end"] == 2
    assert acacia["data"]["object"]["items"]["data"] == [{"id": "si_1"}]
    assert (acacia["request"]["id"], acacia["api_version"]) == ("req_1", "2025-02-24.acacia")
    oldest = at_version(EVENT, "2017-04-06")
    assert (oldest["request"], oldest["user_id"], "account" in oldest) == ("req_1", "acct_1", False)
    assert oldest["data"]["object"]["billing"] == "charge_automatically"
    assert EVENT["request"] == {"id": "req_1", "idempotency_key": "k"}
