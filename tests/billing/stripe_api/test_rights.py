"""The table of rights, compared with the calls in billing's code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import services.billing
from services.billing.stripe_api.rights import RIGHTS

BILLING = Path(services.billing.__file__).parent
WRITES = frozenset({"post", "delete"})
SAME_RIGHT = {"subscription_items": "subscriptions", "invoice_payments": "invoices"}
"""Resources that have no right of their own."""
PREVIEWS = "/v1/invoices/create_preview"
"""A POST that changes nothing."""


def resource(path: str) -> str:
    """The resource of a path: its first part, with the second one for the parts that group resources."""
    parts = path.removeprefix("/v1/").split("/")
    if parts[0] in ("checkout", "billing"):
        return "/".join(parts[:2])
    return SAME_RIGHT.get(parts[0], parts[0])


def sources() -> Iterator[tuple[str, str]]:
    """Names and texts of billing's source files without the table itself."""
    for path in sorted(BILLING.rglob("*.py")):
        if path.name != "rights.py":
            yield str(path.relative_to(BILLING)), path.read_text()


def text_of(node: ast.expr | None, names: dict[str, str]) -> str:
    """The beginning of a path as far as it is constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
        return "".join(text_of(part, names) or "{}" for part in parts)
    return ""


def written(text: str) -> set[str]:
    """Resources that the calls in a source file change."""
    tree = ast.parse(text)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            path = text_of(node.value, names)
            if isinstance(target, ast.Name) and path.startswith("/v1/"):
                names[target.id] = path
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES:
            path = text_of(node.args[1], names) if len(node.args) > 1 else ""
            if path.startswith("/v1/") and path != PREVIEWS:
                found.add(resource(path))
    return found


def test_every_call_of_billing_has_a_right() -> None:
    readable = {resource(right.path) for right in RIGHTS}
    writable = {resource(right.path) for right in RIGHTS if right.access == "write"}
    lacking = {}
    for name, text in sources():
        called = {resource(path) for path in re.findall(r'f?"(/v1/[a-z_]+[^"]*)"', text)}
        missing = (called - readable) | (written(text) - writable)
        if missing:
            lacking[name] = missing
    assert lacking == {}


def test_calls_that_write_are_recognized() -> None:
    found = set().union(*(written(text) for _, text in sources()))
    assert found == {
        *("customers", "subscriptions", "subscription_schedules", "refunds", "billing_portal"),
        *("checkout/sessions", "billing/meter_events"),
    }
