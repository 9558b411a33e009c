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
            # Unique to the process: the same pod with a restarted container does not hold what it held.
            identity = f"{settings.pod_name or socket.gethostname()}_{uuid.uuid4()}"
            leader = Leader(store, identity, terms)
            client.fence = leader.holds
        await Operator(client, settings, leader).run()
