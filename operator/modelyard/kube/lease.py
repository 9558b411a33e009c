"""The Lease object: read, and written only over what was read."""

from typing import Any

from modelyard.core.lease import Record
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import LEASES


class LeaseStore:
    """One Lease, https://kubernetes.io/docs/concepts/architecture/leases/."""

    def __init__(self, client: KubeClient, namespace: str, name: str, timeout: float) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._path = LEASES.path(namespace, name)
        self._timeout = timeout

    async def read(self) -> Record | None:
        """Return what the Lease says; None if there is none.

        Raises ApiError where the API server refuses, cannot be reached or does not answer in time.
        """
        try:
            return _record(await self._client.request("GET", self._path, timeout=self._timeout))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def write(self, record: Record) -> Record | None:
        """Store a Lease over the version that it was made from, or create it; None if another was faster.

        Raises ApiError as `read` does. The Lease may have been stored all the same.
        """
        spec = {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": int(record.duration),
            "acquireTime": record.acquired,
            "renewTime": record.renewed,
            "leaseTransitions": record.transitions,
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        if record.version:
            metadata["resourceVersion"] = record.version
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": spec,
        }
        method, path = ("PUT", self._path) if record.version else ("POST", LEASES.path(self._namespace))
        try:
            return _record(await self._client.request(method, path, body=body, timeout=self._timeout))
        except ApiError as error:
            # 404: deleted meanwhile. 409: changed, or created, meanwhile.
            if error.status in {404, 409} and (record.version or error.status == 409):
                return None
            raise


def _record(body: dict[str, Any]) -> Record:
    spec = body.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        duration=float(spec.get("leaseDurationSeconds") or 0),
        acquired=spec.get("acquireTime") or "",
        renewed=spec.get("renewTime") or "",
        transitions=int(spec.get("leaseTransitions") or 0),
        version=body["metadata"]["resourceVersion"],
    )
