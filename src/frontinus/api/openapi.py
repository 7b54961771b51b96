"""The OpenAPI 3.1 document and a page for people, both made from fields.py and operations.py: they cannot be out of date."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from frontinus import __version__
from frontinus.api import requests
from frontinus.api.calls import Call, json_response
from frontinus.api.dry_run import ARGUMENT, DRY_RUN_SCHEMA
from frontinus.api.fields import NOTHING, REFUSED, REQUIRED, RESOURCES, Field, Resource, Rule
from frontinus.api.idempotency import HEADER
from frontinus.api.reading import FIELDS, known_list_arguments
from frontinus.api.routing import WRITES, Body, Operation
from frontinus.api.wire_types import Ids, Nested, or_null

Json = dict[str, Any]  # an OpenAPI document, which is free-form JSON by definition

_VARIABLE = re.compile(r"{(\w+)}")


def document_operations(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """/docs and /docs/openapi.json for these operations."""
    document = openapi_document(operations)
    page = _page(operations)

    async def show_document(_call: Call) -> Response:
        return json_response(document)

    async def show_page(_call: Call) -> Response:
        return Response(page, media_type="text/html")

    return (
        Operation("docs", "GET", "/docs", show_page, "This page.", arguments=None, plain=True),
        Operation("docs.openapi", "GET", "/docs/openapi.json", show_document, "OpenAPI.", arguments=None, plain=True),
    )


def openapi_document(operations: Iterable[Operation]) -> Json:
    """The whole API as OpenAPI 3.1."""
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    schemas: Json = {"fault": _fault_schema()}
    for key, resource in RESOURCES.items():
        schemas[key] = _shown_schema(resource)
        for suffix, which in (
            ("create", requests.Operation.CREATE),
            ("nested", requests.Operation.NESTED),
            ("update", requests.Operation.UPDATE),
        ):
            schemas[f"{key}-{suffix}"] = _asked_schema(resource, which)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Frontinus",
            "version": __version__,
            "description": "Load balancing as a service: the OpenStack load-balancer API, version 2.30.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(operation: Operation) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(operation.path)
    ]
    names = sorted(operation.arguments or ())
    if operation.id.endswith(".list") and operation.resource is not None:
        names = known_list_arguments(RESOURCES[operation.resource])
    elif operation.id.endswith(".show"):
        names = [FIELDS]
    parameters += [{"name": x, "in": "query", "required": False, "schema": {"type": "string"}} for x in names]
    if operation.method in WRITES:
        parameters.append(_DRY_RUN)
    if operation.method == "POST":
        parameters.append(_IDEMPOTENCY_KEY)
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": {
            str(operation.success): _success(operation),
            **_dry_answer(operation),
            "default": {
                "description": "What is wrong, in words.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/fault"}}},
            },
        },
    }
    if parameters:
        described["parameters"] = parameters
    body = _request_schema(operation)
    if body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return described


def _request_schema(operation: Operation) -> Json | None:
    if operation.body is not Body.REQUIRED or operation.resource is None:
        return None
    resource = RESOURCES[operation.resource]
    suffix = "update" if operation.id.endswith(".update") else "create"
    reference = {"$ref": f"#/components/schemas/{operation.resource}-{suffix}"}
    if operation.id.endswith(".batch"):
        asked = _enveloped(resource.collection_key, {"type": "array", "items": reference})
    else:
        asked = _enveloped(resource.item_key, reference)
    return asked | {"additionalProperties": False}


def _success(operation: Operation) -> Json:
    described: Json = {"description": "Done."}
    is_empty = operation.success == 204 or (operation.success == 202 and operation.id != "quota.update")
    if operation.resource is None or is_empty:
        return described
    resource = RESOURCES[operation.resource]
    reference = {"$ref": f"#/components/schemas/{operation.resource}"}
    if operation.id.endswith(".list"):
        schema = _enveloped(resource.collection_key, {"type": "array", "items": reference})
        links = {"type": "object", "properties": {"rel": {"type": "string"}, "href": {"type": "string"}}}
        schema["properties"][resource.links_key] = {"type": "array", "items": links}
    elif operation.id == "loadbalancer.create":
        schema = _enveloped(resource.item_key, {"type": "object", "description": "With everything below it, nested."})
    else:
        schema = _enveloped(resource.item_key, reference)
        if operation.method in WRITES and operation.success == 200:
            schema["properties"][ARGUMENT] = DRY_RUN_SCHEMA
    return described | {"content": {"application/json": {"schema": schema}}}


def _dry_answer(operation: Operation) -> Json:
    """What a dry run is answered with, where that is another status than the real one's."""
    if operation.method not in WRITES or operation.success == 200:
        return {}
    schema = {"type": "object", "properties": {ARGUMENT: DRY_RUN_SCHEMA}, "required": [ARGUMENT]}
    return {"200": {"description": "Only tried: see dry_run.", "content": {"application/json": {"schema": schema}}}}


_DRY_RUN: Json = {
    "name": ARGUMENT,
    "in": "query",
    "required": False,
    "description": "Judge the request and tell what it would do; do nothing.",
    "schema": {"type": "boolean", "default": False},
}
_IDEMPOTENCY_KEY: Json = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Whoever sends the request again with the same key gets the first answer; nothing is made twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]+$"},
}


def _enveloped(key: str, schema: Json) -> Json:
    return {"type": "object", "properties": {key: schema}, "required": [key]}


def _fault_schema() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {"faultcode": text, "faultstring": text, "debuginfo": {"type": ["string", "null"]}},
        "required": ["faultcode", "faultstring", "debuginfo"],
    }


def _shown_schema(resource: Resource) -> Json:
    shown = {x.wire: or_null(_shown_type(x) | {"description": x.doc}) for x in resource.fields if x.read is not None}
    return {"type": "object", "properties": shown}


def _shown_type(field: Field) -> Json:
    """What is nested in a request is shown by its ids."""
    return Ids().schema() if isinstance(field.type, Nested) else field.type.schema()


def _asked_schema(resource: Resource, operation: requests.Operation) -> Json:
    properties: Json = {}
    required: list[str] = []
    for field in resource.fields:
        rule = requests.rule_of(field, operation)
        if rule is None:
            continue
        properties[field.wire] = _asked_property(field, rule)
        if rule.absent is REQUIRED:
            required.append(field.wire)
    schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _asked_property(field: Field, rule: Rule) -> Json:
    schema = {**field.type.schema(), "description": field.doc}
    if rule.absent not in (REQUIRED, NOTHING):
        schema["default"] = msgspec.to_builtins(rule.absent)
    return schema if rule.null is REFUSED else or_null(schema)


# ---------------------------------------------------------------- the page


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 2rem; }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .5rem; text-align: left; vertical-align: top; }
code { background: #f4f4f4; padding: 0 .2rem; } .method { font-weight: 600; }
"""


def _page(operations: Iterable[Operation]) -> str:
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Frontinus API</title>",
        f"<style>{_STYLE}</style></head><body><h1>Frontinus API {html.escape(__version__)}</h1>",
        "<p>The OpenStack load-balancer API, version 2.30. For programs: <a href='/docs/openapi.json'>OpenAPI 3.1</a>. ",
        'Errors are <code>{"faultcode", "faultstring", "debuginfo"}</code>.</p><h2>Operations</h2><table>',
        "<tr><th>Method</th><th>Path</th><th>What it does</th><th>Success</th></tr>",
    ]
    parts += [
        f"<tr><td class='method'>{x.method}</td><td><code>{html.escape(x.path)}</code></td>"
        f"<td>{html.escape(x.summary)}</td><td>{x.success}</td></tr>"
        for x in operations
    ]
    parts.append("</table>")
    for key, resource in RESOURCES.items():
        parts.append(f"<h2 id='{key}'>{key}</h2><table><tr><th>Attribute</th><th>Type</th><th>Create</th>")
        parts.append("<th>Whole tree</th><th>Update</th><th>Since</th><th>Meaning</th></tr>")
        parts += [_row(x) for x in resource.fields]
        parts.append("</table>")
    parts.append("</body></html>")
    return "".join(parts)


def _row(field: Field) -> str:
    cells = [
        f"<code>{field.wire}</code>",
        html.escape(_type_in_words(field.type.schema())),
        _rule_in_words(field.create),
        _rule_in_words(field.nested),
        "" if field.update is None else "yes",
        field.since,
        html.escape(field.doc),
    ]
    return "<tr>" + "".join(f"<td>{x}</td>" for x in cells) + "</tr>"


def _type_in_words(schema: Json) -> str:
    if "enum" in schema:
        return " | ".join(str(x) for x in schema["enum"])
    if "minimum" in schema:
        return f"integer {schema['minimum']}..{schema['maximum']}"
    if schema.get("type") == "array":
        return f"list of {_type_in_words(schema['items'])}"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].removesuffix("-nested")
    kind = schema.get("type", "any")
    words = str(kind[0] if isinstance(kind, list) else kind)
    return f"{words} ({schema['format']})" if "format" in schema else words


def _rule_in_words(rule: Rule | None) -> str:
    if rule is None:
        return ""
    return "required" if rule.absent is REQUIRED else "yes"
