"""Replicas that span nodes: groups of pods of a LeaderWorkerSet, seen as one pod each, and what they need of a cluster.

Everything else counts replicas, asks whether one serves, and where its requests go. A group answers all of that like
one pod: its leader, which serves while all of the group is there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelyard.api.meta import Refusal
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import Pod

GROUPS_READY = "LeaderWorkerSetReady"
"""Type of the condition of a deployment that may span nodes."""

CRD = "leaderworkersets.leaderworkerset.x-k8s.io"


@dataclass(frozen=True, slots=True)
class GroupSupport:
    """What the cluster offers for groups in one namespace."""

    served: bool = True
    """Whether the API server has the kind."""
    missing_rights: tuple[str, ...] = ()
    """Verbs on the kind that Modelyard may not use."""

    @property
    def complete(self) -> bool:
        """Whether groups can be made."""
        return self.served and not self.missing_rights


def fold_groups(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Return the replicas, by name: pods that are one by themselves, and each group as the pod of its leader.

    A group without a leader is none: LeaderWorkerSet takes its other pods away.
    """
    found: list[Pod] = []
    groups: dict[str, list[Pod]] = {}
    for pod in pods:
        if pod.group:
            groups.setdefault(pod.group, []).append(pod)
        else:
            found.append(pod)
    for members in groups.values():
        leaders = [pod for pod in members if pod.member == 0]
        # One that leaves may still be there when the next one of its name has come.
        leader = min(leaders, key=lambda pod: (pod.terminating, -pod.created), default=None)
        if leader is not None:
            found.append(_fold(leader, [pod for pod in members if pod.member != 0]))
    return tuple(sorted(found, key=lambda pod: pod.name))


def _fold(leader: Pod, workers: list[Pod]) -> Pod:
    """Return a group as one pod."""
    staying = [leader, *sorted((pod for pod in workers if not pod.terminating), key=lambda pod: pod.member)]
    whole = len(staying) >= leader.nodes
    # The layers of one that leaves are missing from the next token on.
    ready = (
        leader.ready
        and whole
        and len(staying) == len(workers) + 1
        and all(pod.phase == "Running" for pod in staying)
    )
    troubled = next((pod for pod in staying if pod.waiting), leader)
    accelerators: dict[str, int] = {}
    for pod in staying:
        for resource, count in pod.accelerators.items():
            accelerators[resource] = accelerators.get(resource, 0) + count
    begun = all(pod.phase != "Pending" for pod in staying) and whole
    return replace(
        leader,
        accelerators=accelerators,
        phase="Pending" if leader.phase == "Running" and not begun else leader.phase,
        scheduled=whole and all(pod.scheduled for pod in staying),
        ready=ready,
        ready_since=leader.ready_since if ready else None,
        waiting=troubled.waiting,
        message=troubled.message if troubled is leader else f"pod {troubled.name}: {troubled.message}",
        restarts=max(pod.restarts for pod in staying),
        placed=min(leader.nodes, sum(pod.scheduled for pod in (leader, *workers))),
    )


def refuse_groups(support: GroupSupport | None, namespace: str) -> Refusal | None:
    """Return why no replica can span nodes in a namespace, None if one can. `support` None: not known yet."""
    found, reason = explain_groups(support, namespace)
    return None if found else Refusal(reason.code, reason.message)


def explain_groups(support: GroupSupport | None, namespace: str) -> tuple[bool, Reason]:
    """Return whether replicas can span nodes in a namespace, and why not. `support` None: not known yet."""
    if support is None:
        return False, Reason(
            Code.LEADER_WORKER_SET_PENDING, f"the API server has not said yet whether it has {CRD}"
        )
    if not support.served:
        return False, Reason(
            Code.LEADER_WORKER_SET_MISSING,
            f"the cluster has no {CRD}, so no replica can span nodes: install LeaderWorkerSet "
            "(https://lws.sigs.k8s.io/docs/installation/), or set placement.accelerators[].nodes to 1",
        )
    if support.missing_rights:
        return False, Reason(
            Code.LEADER_WORKER_SET_FORBIDDEN,
            f"the operator may not {', '.join(support.missing_rights)} {CRD} in namespace {namespace}: grant it, or "
            "set placement.accelerators[].nodes to 1",
        )
    return True, Reason(Code.LEADER_WORKER_SET_FOUND, "replicas that span nodes are LeaderWorkerSets")
