"""The ConfigMaps of the ledger."""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, Literal

from modelyard.api.meta import GROUP, LABEL_MANAGED_BY, MANAGED_BY

LABEL_LEDGER = f"{GROUP}/ledger"
"""On every ConfigMap of the ledger: `Open`, `Hour` or `Day`."""

Part = Literal["Open", "Hour", "Day"]

PLAIN_BYTES = 256 * 1024
"""Bytes up to which the JSON stands in the ConfigMap as it is, for people. A longer one is compressed to a fifth."""

MAX_BYTES = 1024 * 1024 - 16 * 1024
"""Bytes of the data of a ConfigMap. Kubernetes takes 1 MiB with the names of the keys
(https://kubernetes.io/docs/concepts/configuration/configmap/); the rest is left for them."""

_PLAIN, _COMPRESSED = "ledger.json", "ledger.json.zlib"


class LedgerTooLargeError(Exception):
    """A part of the ledger does not fit into one object."""


def build_ledger(name: str, namespace: str, part: Part, text: str, version: str = "") -> dict[str, Any]:
    """Return the ConfigMap with a part of the ledger. `version` is the one that it replaces; empty: it is new.

    Raises LedgerTooLargeError.
    """
    raw = text.encode()
    data: dict[str, Any] = {"data": {_PLAIN: text}}
    if len(raw) > PLAIN_BYTES:
        compressed = zlib.compress(raw)
        if len(compressed) > MAX_BYTES:
            raise LedgerTooLargeError(
                f"{namespace}/{name} would have {len(compressed)} bytes of {MAX_BYTES}: serve fewer tenants and routes "
                "by one gateway, or run fewer Envoys"
            )
        data = {"binaryData": {_COMPRESSED: base64.b64encode(compressed).decode()}}
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {LABEL_LEDGER: part, LABEL_MANAGED_BY: MANAGED_BY},
    }
    if version:
        metadata["resourceVersion"] = version
    # What never changes needs no watch of the kubelet, and nobody can edit it by mistake.
    frozen = {} if part == "Open" else {"immutable": True}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **data, **frozen}


def read_ledger(body: Mapping[str, Any]) -> str:
    """Return the text in a ConfigMap of the ledger. Raises ValueError if there is none."""
    plain = (body.get("data") or {}).get(_PLAIN)
    if isinstance(plain, str):
        return plain
    try:
        packed = base64.b64decode((body.get("binaryData") or {})[_COMPRESSED], validate=True)
        return zlib.decompress(packed).decode()
    except (KeyError, binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"no {_PLAIN} in it") from error
