"""Each algorithm that the settings may name works from the login to any resource server."""

from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from services.embedded.demo import CLIENT_ID
from tests.stack import running_stack

CURVES = {"EdDSA": "Ed25519", "ES512": "P-521"}


@pytest.mark.parametrize("algorithm", CURVES)
async def test_tokens_of_another_algorithm_are_taken_everywhere(
    algorithm: str, tmp_path: Path, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> None:
    prefix = unique()
    async with running_stack(
        tmp_path,
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        settings={"NEST_SIGNING_ALGORITHM": algorithm},
    ) as nest:
        tokens = await nest.log_in("ada@example.com")
        token, user_id = tokens["access_token"], tokens["user_id"]
        user = await nest.call("get_user", {"user_id": user_id}, authorization=f"bearer {token}")
        assert user.status_code == 200
        configuration = (await nest.http.get("/.well-known/openid-configuration")).json()
        assert algorithm in configuration["id_token_signing_alg_values_supported"]
        [jwk] = (await nest.http.get("/.well-known/jwks.json")).json()["keys"]
        assert (jwk["alg"], jwk["crv"], jwk["use"]) == (algorithm, CURVES[algorithm], "sig")
        assert "d" not in jwk
        claims = jwt.decode(
            token, jwt.PyJWK(jwk), algorithms=[algorithm], audience=CLIENT_ID, issuer=configuration["issuer"]
        )
        assert claims["sub"] == user_id
