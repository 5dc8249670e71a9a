"""A client that operators disable, seen by the gateways."""

from tests.stack import Login, Stack, eventually


async def test_every_gateway_refuses_a_disabled_clients_tokens_within_a_second(nest: Stack, email: str) -> None:
    made = await nest.call(
        "create_client", {"name": "An app", "redirect_uris": ["https://app.example/cb"]}, **nest.internal
    )
    client_id = made.json()["id"]
    login = {"client_id": client_id, "redirect_uri": "https://app.example/cb"}
    tokens = await nest.log_in(email, **login)
    who = {"user_id": tokens["user_id"]}
    bearer = {"authorization": f"bearer {tokens['access_token']}"}

    async def statuses() -> list[int]:
        return [
            (await nest.http.post(f"{url}/1/2021-10-06/get_user", json=who, headers=bearer)).status_code
            for url in nest.urls
        ]

    async def are(*expected: int) -> bool:
        return await statuses() == list(expected)

    await eventually(lambda: are(200, 200), what="the client at every gateway")
    await nest.call("update_client", {"id": client_id, "disabled": True}, **nest.internal)
    await eventually(lambda: are(401, 401), within=1, what="the end of its tokens")
    order = await nest.call("send_magic_link", Login(email, **login).order())
    assert (order.status_code, order.json()["code"]) == (403, "client_disabled")
    await nest.call("update_client", {"id": client_id, "disabled": False}, **nest.internal)
    await eventually(lambda: are(200, 200), within=1, what="its tokens again")
