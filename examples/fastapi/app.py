"""An API with login by mail, a paid plan, and a report for people who have it."""

import os
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import Cookie, Depends, FastAPI, HTTPException, Request, Response
from nest_client import AsyncClient, AsyncTokenVerifier, Claims, PendingLogin
from nest_client.fastapi import BearerToken

NEST, CLIENT_ID, APP = os.environ["NEST_URL"], os.environ["CLIENT_ID"], os.environ["APP_URL"]
app = FastAPI()
nest = AsyncClient(NEST, internal_key=os.environ["NEST_INTERNAL_KEY"])
User = Annotated[Claims, Depends(BearerToken(AsyncTokenVerifier(NEST, CLIENT_ID)))]


@app.post("/login", status_code=204)
async def login(email: str, response: Response) -> None:
    pending = await nest.start_login(email, client_id=CLIENT_ID, redirect_uri=f"{APP}/callback")
    response.set_cookie("login", urlencode(pending.to_dict()), httponly=True, samesite="lax", max_age=600)


@app.get("/callback")
async def callback(request: Request, login: Annotated[str, Cookie()]) -> dict[str, str]:
    tokens = await nest.finish_login(PendingLogin.from_dict(dict(parse_qsl(login))), url=str(request.url))
    return {"access_token": tokens.access_token}


@app.post("/subscribe")
async def subscribe(user: User) -> str:
    price = (await nest.list_plans())["plans"][0]["prices"][0]["price_id"]
    pages = {"success_url": APP, "cancel_url": APP, "user_id": user.user_id, "client_id": CLIENT_ID}
    return (await nest.create_checkout(items=[{"price_id": price}], **pages))["url"]


@app.get("/report")
async def report(user: User) -> str:
    if not (await nest.get_customer_state(user_id=user.user_id))["entitled"]:
        raise HTTPException(402, "The report needs a plan: POST /subscribe.")
    return "All is well."
