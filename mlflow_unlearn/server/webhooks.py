"""The receiver of MLflow's registry webhooks: is a delivery MLflow's, what does it name, and what does the gate say of that now?

It notifies and stops nothing. MLflow sends a delivery when the thing is done, tries three times more where nobody answers, and forgets it then.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from ..documents import moment
from ..errors import UnlearnError

STOPS_NOTHING = "this notifies; it stops nothing: the gate in the server does"
MOST_BYTES = 1 << 20
CLOCK_S = 300
"""A delivery that is older or newer counts as none of today's."""
MOST_IDS = 50_000
"""Ids of deliveries that are remembered; some 10 MB. Only signed ones are, so that nobody else can fill it."""
MOST_WAITING = 256
_BODY_S = 10.0

Ask = Callable[[str, str | None], Mapping[str, Any]]
"""From `models:/NAME/VERSION` and an alias to the gate's answer, as `commands.gating.gate_version` gives it."""
Tell = Callable[[Mapping[str, Any]], None]

_MODEL = {"model": "name"}
_VERSION = {**_MODEL, "version": "version"}
_PROMPT = {"prompt": "name"}
EVENTS: Mapping[str, Mapping[str, str]] = {
    "registered_model.created": _MODEL,
    "model_version.created": _VERSION,
    "model_version_tag.set": {**_VERSION, "tag": "key"},
    "model_version_tag.deleted": {**_VERSION, "tag": "key"},
    "model_version_alias.created": {**_VERSION, "alias": "alias"},
    "model_version_alias.deleted": {**_MODEL, "alias": "alias"},
    "prompt.created": _PROMPT,
    "prompt_version.created": _PROMPT,
    "prompt_tag.set": _PROMPT,
    "prompt_tag.deleted": _PROMPT,
    "prompt_version_tag.set": _PROMPT,
    "prompt_version_tag.deleted": _PROMPT,
    "prompt_alias.created": _PROMPT,
    "prompt_alias.deleted": _PROMPT,
    "budget_policy.exceeded": {},
}
"""What MLflow sends -> what a notification says of it -> where it stands in the delivery. Values of tags and descriptions are nobody's business."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""No dot, since the signature is over id, time and body with dots between."""
_SECONDS = re.compile(r"[0-9]{1,12}")
_NAMES = {"model": re.compile(r"[^/:\x00-\x1f]{1,256}"), "version": re.compile(r"[0-9]{1,10}")}
_ANY_NAME = re.compile(r".{1,500}", re.DOTALL)

_log = logging.getLogger(__name__)


class RefusedDeliveryError(UnlearnError):
    """A delivery that is answered with an HTTP status and words, and forgotten."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """An event that MLflow told of."""

    delivery_id: str
    event: str
    sent: datetime
    names: Mapping[str, str]
    """What it is about: `model`, `version`, `alias`, `tag`, `prompt`, as far as the event has them."""

    @property
    def version_uri(self) -> str | None:
        """The model version that it names, if it names one."""
        return f"models:/{self.names['model']}/{self.names['version']}" if "version" in self.names else None


def checked(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> Delivery:
    """What a delivery says, if it is signed with one of these secrets, of now, and such as MLflow sends.

    Raises:
        RefusedDeliveryError: it is not.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedDeliveryError(415, "content-type: expected application/json, as MLflow sends it")
    found = {name: headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp", "signature")}
    if missing := [f"X-MLflow-{name.title()}" for name, value in found.items() if not value]:
        raise RefusedDeliveryError(401, f"{', '.join(missing)}: missing; give the webhook in MLflow the secret of this receiver")
    if not _ID.fullmatch(found["delivery-id"]) or not _SECONDS.fullmatch(found["timestamp"]):
        raise RefusedDeliveryError(400, "X-MLflow-Delivery-Id, X-MLflow-Timestamp: expected an id without dots and seconds since 1970")
    content = f"{found['delivery-id']}.{found['timestamp']}.".encode() + body
    if not _signed(found["signature"].encode(), content, secrets):
        raise RefusedDeliveryError(401, "X-MLflow-Signature: made with none of the secrets here; compare the webhook's secret in MLflow with them")
    if abs(int(found["timestamp"]) - now) > CLOCK_S:
        raise RefusedDeliveryError(401, f"X-MLflow-Timestamp: more than {CLOCK_S} s from the clock here; set both clocks, or it was sent again")
    event, names = _told(body)
    return Delivery(delivery_id=found["delivery-id"], event=event, sent=datetime.fromtimestamp(int(found["timestamp"]), UTC), names=names)


def _signed(signature: bytes, content: bytes, secrets: Sequence[str]) -> bool:
    expected = [b"v1," + base64.b64encode(hmac.digest(secret.encode(), content, "sha256")) for secret in secrets]
    return any([hmac.compare_digest(each, signature) for each in expected])  # noqa: C419 - all of them, so that time says not which


def _told(body: bytes) -> tuple[str, dict[str, str]]:
    """The event and what it names."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedDeliveryError(400, "body: not JSON") from None
    if not isinstance(document, dict) or not isinstance(data := document.get("data"), dict):
        raise RefusedDeliveryError(422, "body: expected an object with entity, action and data")
    event = f"{document.get('entity')}.{document.get('action')}"
    if event not in EVENTS:
        raise RefusedDeliveryError(422, "body: entity and action are none that this receiver knows; it knows those of MLflow 3.17")
    names = {name: data.get(key) for name, key in EVENTS[event].items()}
    wrong = [f"data.{EVENTS[event][name]}" for name, value in names.items() if not _is_name(name, value)]
    if wrong:
        raise RefusedDeliveryError(422, f"body: {', '.join(wrong)}: missing, or none that MLflow gives")
    return event, {name: str(value) for name, value in names.items()}


def _is_name(kind: str, value: object) -> bool:
    return isinstance(value, str) and bool(_NAMES.get(kind, _ANY_NAME).fullmatch(value))


class SeenIds:
    """Ids of deliveries that may still come again under a valid time."""

    def __init__(self, most: int = MOST_IDS) -> None:
        self._most = most
        self._until: OrderedDict[str, float] = OrderedDict()

    def check(self, delivery: Delivery, now: float) -> None:
        """Let a new one through.

        Raises:
            RefusedDeliveryError: it came before, or so many came that this one could not be told from the next.
        """
        while self._until and next(iter(self._until.values())) < now:
            self._until.popitem(last=False)
        if delivery.delivery_id in self._until:
            raise RefusedDeliveryError(409, "X-MLflow-Delivery-Id: this delivery came before; nothing is done twice")
        if len(self._until) >= self._most:
            raise RefusedDeliveryError(503, "too many deliveries within a few minutes; this one is not taken")

    def add(self, delivery: Delivery, now: float) -> None:
        """Remember one for as long as its time could be valid, whatever that time is."""
        self._until[delivery.delivery_id] = now + 2 * CLOCK_S


class Receiver:
    """The web application, and behind it one thread that asks the gate.

    Args:
        secrets: any of them may have signed a delivery.
        ask: the gate.
        tell: what is done with a notification, a JSON-ready document; in that thread.
    """

    def __init__(self, secrets: Sequence[str], ask: Ask, tell: Tell) -> None:
        self._secrets, self._ask, self._tell = tuple(secrets), ask, tell
        self._seen = SeenIds()
        self._free = threading.BoundedSemaphore(MOST_WAITING)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="webhook")
        self.app = FastAPI(openapi_url=None)
        self.app.add_api_route("/", self._receive, methods=["POST"])

    def close(self) -> None:
        """Finish what is being asked; what waits is dropped, and said."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    async def _receive(self, request: Request) -> JSONResponse:
        try:
            body, now = await _body(request), time.time()
            delivery = checked(request.headers, body, self._secrets, now)
            self._seen.check(delivery, now)
            self._enter(delivery)
            self._seen.add(delivery, now)
        except RefusedDeliveryError as error:
            return JSONResponse({"error": str(error)}, error.status)
        return JSONResponse({"note": STOPS_NOTHING}, 202)

    def _enter(self, delivery: Delivery) -> None:
        """Put it behind those that wait; a full line answers as MLflow takes for `try again`."""
        if not self._free.acquire(blocking=False):
            raise RefusedDeliveryError(503, f"{MOST_WAITING} deliveries wait for the gate already; this one is not taken")
        self._worker.submit(self._notify, delivery).add_done_callback(lambda done: self._done(delivery, done))

    def _notify(self, delivery: Delivery) -> None:
        self._tell(notification(delivery, self._answer(delivery)))

    def _answer(self, delivery: Delivery) -> Mapping[str, Any] | None:
        if (uri := delivery.version_uri) is None:
            return None
        try:
            return self._ask(uri, delivery.names.get("alias"))
        except (UnlearnError, OSError) as error:
            words = str(error).splitlines() or [type(error).__name__]
            return {"version": uri.removeprefix("models:/"), "answer": "undecided", "sentence": "the gate could not be asked", "reasons": words}

    def _done(self, delivery: Delivery, done: Future[None]) -> None:
        self._free.release()
        if done.cancelled():
            _log.warning("webhook: delivery %s was dropped, since the receiver stops", delivery.delivery_id)
        elif (error := done.exception()) is not None:
            words = str(error) if isinstance(error, UnlearnError) else type(error).__name__
            _log.error("webhook: delivery %s: nobody was told: %s", delivery.delivery_id, words)


def notification(delivery: Delivery, gate: Mapping[str, Any] | None) -> dict[str, Any]:
    """What somebody is told: the event, whom it is about, and the gate's answer of now; None where no version is named."""
    about = {"event": delivery.event, "delivery": delivery.delivery_id, "sent_at": moment(delivery.sent)}
    return {"schema": "notification-v1", **about, **delivery.names, "gate": dict(gate) if gate is not None else None, "note": STOPS_NOTHING}


async def _body(request: Request) -> bytes:
    """The body, unless it is too long or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise RefusedDeliveryError(413, f"body: longer than {MOST_BYTES} bytes")
    except (TimeoutError, ClientDisconnect):
        raise RefusedDeliveryError(408, f"body: not complete within {_BODY_S:.0f} s") from None
    return bytes(body)
