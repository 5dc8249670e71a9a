from tests.operator.conftest import NestStub
from tests.operator.responses import RUN

DIFFERENCE = {
    "object": "subscription",
    "stripe_id": "sub_stripe",
    "id": "sub_1",
    "kind": "differs",
    "state": "found",
    "fields": [{"field": "status", "ours": "active", "theirs": "canceled"}],
}


def test_differences_are_printed_and_exit_with_code_1(nest: NestStub) -> None:
    nest.responses["reconcile_subscriptions"] = {**RUN, "differences": 1}
    nest.responses["list_stripe_differences"] = {"differences": [DIFFERENCE], "next_cursor": None}
    done = nest.run("stripe", "verify")
    assert done.exit_code == 1
    assert "sub_stripe\tsub_1" in done.stdout
    assert "status: active -> canceled" in done.stdout
