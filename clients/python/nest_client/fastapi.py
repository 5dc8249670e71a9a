"""Dependency of FastAPI and Starlette that requires an access token of Nest (extra ``fastapi``)."""

# Without postponed annotations: FastAPI reads those of the dependency at run time.

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from nest_client.verifier import AsyncTokenVerifier, Claims, InvalidToken, KeysUnavailable


class BearerToken:
    """Dependency that returns the claims of the request's bearer token.

    A request without a token gets 401, one with an invalid token 401 with ``error="invalid_token"`` (RFC 6750), and 503
    if the keys of Nest cannot be read. In Starlette, await it with the request.

    Args:
        verifier: Verifier of the tokens.
        feature: Key of a feature that the user must have in the claim ``ent``; without it 403.
    """

    def __init__(self, verifier: AsyncTokenVerifier, *, feature: str | None = None) -> None:
        self.verifier = verifier
        self.feature = feature

    async def __call__(self, connection: HTTPConnection) -> Claims:
        """Return the claims of a request or of a WebSocket.

        Raises:
            HTTPException: 401, 403 or 503.
        """
        values = connection.headers.getlist("authorization")
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token.strip():
            raise HTTPException(401, "An access token is required.", {"www-authenticate": "Bearer"})
        try:
            claims = await self.verifier.verify(token.strip())
        except InvalidToken as error:
            challenge = 'Bearer error="invalid_token"'
            raise HTTPException(401, str(error), {"www-authenticate": challenge}) from None
        except KeysUnavailable as error:
            raise HTTPException(503, str(error), {"retry-after": "5"}) from None
        if self.feature is not None and self.feature not in (claims.features or ()):
            raise HTTPException(403, f"The feature {self.feature} is required.")
        return claims
