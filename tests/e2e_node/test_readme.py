"""README's section about a first model, as a reader types it: its manifests are valid, and the model answers."""

import json

from tests.e2e_node.support import (
    FIRST_MODEL,
    README,
    TEAM,
    blocks_of,
    commands_in,
    section_of,
)


def test_manifests_of_the_page_are_valid(bed):
    manifests = blocks_of(section_of(README, FIRST_MODEL), "yaml")
    assert manifests
    for manifest in manifests:
        bed.kubectl("apply", "-n", TEAM, "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)


def test_a_first_model_answers(bed, terminal):
    commands = [
        command
        for block in blocks_of(section_of(README, FIRST_MODEL), "console")
        for command in commands_in(block)
    ]
    *commands, request = commands
    assert request.startswith("curl http://localhost:8080/v1/chat/completions ")
    for command in commands:
        terminal.run(command)
    printed = terminal.run(request)
    (reply,) = (json.loads(line) for line in printed if line.startswith("{"))
    assert "error" not in reply
    assert reply["choices"][0]["message"]["content"].strip()
