import os

from fastapi.testclient import TestClient
from nest_client.testing import LocalNest

APP, CLIENT_ID = "http://127.0.0.1:5000", "client_my_app"


def test_person_logs_in_pays_and_reads_the_report(nest: LocalNest) -> None:
    nest.operator.create_client(id=CLIENT_ID, name="My app", redirect_uris=[APP, f"{APP}/callback"])
    os.environ |= {"NEST_URL": nest.url, "NEST_INTERNAL_KEY": nest.internal_key, "CLIENT_ID": CLIENT_ID, "APP_URL": APP}
    from app import app

    with TestClient(app, base_url=APP) as browser:
        browser.post("/login", params={"email": "ann@example.com"}).raise_for_status()
        token = browser.get(nest.mail("ann@example.com").link("code=")).json()["access_token"]
        browser.headers["authorization"] = f"Bearer {token}"
        assert browser.get("/report").status_code == 402
        nest.stripe.pay(browser.post("/subscribe").json())
        nest.until(lambda: browser.get("/report").status_code == 200, "the report is readable")
