"""Starts the operator: its connections to the API server, and its part in the election."""

import contextlib
import socket
import uuid

from modelyard.core.lease import Terms
from modelyard.kube.client import KubeClient
from modelyard.kube.lease import LeaseStore
from modelyard.runtime.leader import Leader
from modelyard.runtime.operator import Operator
from modelyard.runtime.settings import OperatorSettings


async def run_operator(settings: OperatorSettings) -> None:
    """Connect to the API server and run.

    Raises LeaseLostError if there is a Lease and it is not this process's any more.
    """
    async with contextlib.AsyncExitStack() as stack:
        client = await KubeClient.connect(settings.kubeconfig)
        stack.push_async_callback(client.close)
        leader = None
        if settings.lease is not None:
            own = await KubeClient.connect(settings.kubeconfig)
            stack.push_async_callback(own.close)
            terms = Terms()
            namespace = settings.render.gateway.namespace
            store = LeaseStore(own, namespace, settings.lease, terms.request)
            identity, place = _identity(settings)
            leader = Leader(store, identity, terms, place=place)
            client.fence = leader.holds
        await Operator(client, settings, leader).run()


def _identity(settings: OperatorSettings) -> tuple[str, str]:
    """Return this process's name in the Lease, and what the names of its container's processes begin with.

    The name is unique to the process: the same pod with a restarted container does not hold what it held. It may take
    it at once, though, because kubelet starts a container when the one before it has ended. The pod's name alone would
    not say that: a pod that was deleted by force may run on beside the next one of its name.
    """
    name = settings.pod_name or socket.gethostname()
    place = f"{name}_{settings.pod_uid}_" if settings.pod_uid else ""
    return f"{place or f'{name}_'}{uuid.uuid4()}", place
