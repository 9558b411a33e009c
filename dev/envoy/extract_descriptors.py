"""Take the API descriptors out of the shipped Envoy binary.

Every protobuf message that Envoy was compiled with is described inside its executable by a serialised
`FileDescriptorProto`. Reading them there gives exactly the API of the pinned version, including fields that no
published Python package knows yet. `python -m dev.envoy.extract_descriptors` rewrites the committed data file;
a test compares that file with the installed binary.
"""

import gzip
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from dev.envoy.binary import ENVOY_VERSION, envoy_binary
from modelyard.gateway.protos import DESCRIPTOR_FILE, ROOT_FILES

_NAME_FIELD = re.compile(rb"\x0a([\x08-\x7f])([a-z][a-z0-9_/.-]*?\.proto)")
"""Field 1 (`name`), its length in one byte, and a path of the API tree ending in `.proto`."""

_HIGHEST_FIELD = 14
"""Largest field number of `FileDescriptorProto` (`edition`), from google/protobuf/descriptor.proto."""

_VARINT, _LENGTH_DELIMITED = 0, 2
"""Wire types that occur in `FileDescriptorProto` (https://protobuf.dev/programming-guides/encoding/)."""


def read_varint(data: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    """Return the varint at `position` and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("not a varint")


def message_end(data: bytes | mmap.mmap, start: int) -> int:
    """Return where the message that starts at `start` ends.

    The bytes carry no total length. protoc writes fields in ascending order, so the message ends at the first
    tag that is no field of `FileDescriptorProto` or that goes back.
    """
    position, last = start, 0
    while position < len(data):
        try:
            tag, after = read_varint(data, position)
            field, wire_type = tag >> 3, tag & 7
            if not last <= field <= _HIGHEST_FIELD or field == 0:
                break
            if wire_type == _LENGTH_DELIMITED:
                length, after = read_varint(data, after)
                after += length
            elif wire_type == _VARINT:
                _, after = read_varint(data, after)
            else:
                break
        except (ValueError, IndexError):
            break
        if after > len(data) or (field == 1 and last == 1):
            break
        position, last = after, field
    return position


def embedded_files(binary: Path) -> Iterator[FileDescriptorProto]:
    """Yield every file descriptor found in an executable."""
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _NAME_FIELD.finditer(data):
            if match.group(1)[0] != len(match.group(2)):
                continue
            raw = data[match.start() : message_end(data, match.start())]
            try:
                descriptor = FileDescriptorProto.FromString(raw)
            except DecodeError:
                continue
            yield descriptor


def closure(files: dict[str, FileDescriptorProto], roots: tuple[str, ...]) -> FileDescriptorSet:
    """Return `roots` and everything they import, every file after its imports and ties in name order.

    Raises KeyError if a file is missing.
    """
    result = FileDescriptorSet()
    done: set[str] = set()

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        for dependency in sorted(files[name].dependency):
            add(dependency)
        result.file.append(files[name])

    for root in sorted(roots):
        add(root)
    return result


def extract(binary: Path, roots: tuple[str, ...] = ROOT_FILES) -> FileDescriptorSet:
    """Return the descriptors of the messages that Modelyard sends, as compiled into `binary`."""
    found: dict[str, FileDescriptorProto] = {}
    for file in embedded_files(binary):
        # Most files are embedded twice, once with the default JSON names spelled out: the shorter one says it all.
        known = found.get(file.name)
        if known is None or file.ByteSize() < known.ByteSize():
            found[file.name] = file
    return closure(found, roots)


def main() -> None:
    """Rewrite the committed descriptor set from the installed Envoy."""
    descriptors = extract(envoy_binary())
    DESCRIPTOR_FILE.parent.mkdir(parents=True, exist_ok=True)
    # A fixed time stamp keeps the file identical from run to run.
    DESCRIPTOR_FILE.write_bytes(gzip.compress(descriptors.SerializeToString(deterministic=True), mtime=0))
    print(f"{DESCRIPTOR_FILE.name}: {len(descriptors.file)} files of Envoy {ENVOY_VERSION}")


if __name__ == "__main__":
    main()
