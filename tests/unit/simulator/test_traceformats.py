"""Trace files: every format, and files that are wrong in every way that was thought of."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from modelyard.simulator import tracefiles
from modelyard.simulator.prefixblocks import PrefixBlocks
from modelyard.simulator.tracefiles import TraceError
from modelyard.simulator.traceformats import read_trace

AZURE = Path(__file__).resolve().parents[3] / "dev" / "traces" / "azure-2023-conversation.csv.gz"


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, name="trace.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_trace(path, **options)

    return write_and_read


def test_own_csv(read):
    load = read("time,input_tokens,output_tokens,cached_tokens\n1.5,100,10,64\n3,200,20,\n")
    assert load.time.tolist() == [1.5, 3]
    assert load.input_tokens.tolist() == [100, 200]
    assert load.output_tokens.tolist() == [10, 20]
    assert load.cached_tokens.tolist() == [64, 0]
    # The last time and one mean gap.
    assert load.duration == 4.5
    assert load.name == "trace"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_extra_columns_order_blank_lines_and_byte_order_marks_do_not_matter(read, end):
    load = read(
        end.join(
            ["\ufeff", "model,output_tokens, time ,input_tokens", "a,10,0,100.0", "", '"b, c",20,1,2e2', ""]
        )
    )
    assert load.time.tolist() == [0, 1]
    assert load.input_tokens.tolist() == [100, 200]
    assert load.cached_tokens.tolist() == [0, 0]


def test_own_json_lines_packed(read):
    rows = [
        {"timestamp": 1_700_000_010, "input_tokens": 5, "output_tokens": 1, "cached_tokens": 5, "user": "x"},
        {"timestamp": 1_700_000_000.5, "input_tokens": 7, "output_tokens": 2, "cached_tokens": None},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    # The content says what it is, whatever the name.
    load = read(gzip.compress(text.encode()), "trace.csv")
    assert load.time.tolist() == [0, 9.5]
    assert load.input_tokens.tolist() == [7, 5]
    # The last token of a prompt is always computed.
    assert load.cached_tokens.tolist() == [0, 4]


@pytest.mark.parametrize("column", ["time", "timestamp"])
def test_dates_count_from_the_first(read, column):
    load = read(
        f"{column},input_tokens,output_tokens\n"
        "2026-03-01T12:00:10+02:00,1,1\n2026-03-01 10:00:00.2500000,2,2\n2026-03-01T10:00:20Z,3,3\n"
    )
    np.testing.assert_allclose(load.time, [0, 9.75, 19.75], atol=1e-6)
    assert load.input_tokens.tolist() == [2, 1, 3]


def test_the_trace_of_azure():
    load = read_trace(AZURE)
    assert len(load) == 19_366
    assert load.duration == pytest.approx(3501.9, abs=0.1)
    assert (load.input_tokens[0], load.output_tokens[0]) == (374, 44)
    assert load.time[1] == pytest.approx(50.995169 - 46.680590, abs=1e-5)
    assert load.input_tokens.mean() == pytest.approx(1154.7, abs=0.1)
    assert load.output_tokens.mean() == pytest.approx(211.1, abs=0.1)
    assert load.name == "azure-2023-conversation"


def test_burstgpt_leaves_out_failures(read):
    load = read(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n118,GPT-4,417,276,693,API log\n"
    )
    assert load.time.tolist() == [0, 113]
    assert load.output_tokens.tolist() == [18, 276]


MOONCAKE = [
    {"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 3000, "input_length": 1500, "output_length": 5, "hash_ids": [0, 1, 3]},
    {"timestamp": 1500, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1]},
    {"timestamp": 4500, "input_length": 1200, "output_length": 5, "hash_ids": [9, 1, 2]},
]


def test_mooncake_counts_leading_blocks(read):
    load = read("\n".join(map(json.dumps, MOONCAKE)), "mooncake.jsonl")
    assert load.time.tolist() == [0, 1.5, 3, 4.5]
    # Two whole blocks less the token that is always computed; two blocks; and none, as the first one differs.
    assert load.cached_tokens.tolist() == [0, 1023, 1024, 0]


def test_mooncake_with_a_small_cache(read):
    load = read("\n".join(map(json.dumps, MOONCAKE)), "mooncake.jsonl", cache_blocks=1)
    assert load.cached_tokens.tolist() == [0, 512, 512, 0]
    assert not read("\n".join(map(json.dumps, MOONCAKE)), cache_blocks=0).cached_tokens.any()


def test_the_least_recently_used_block_leaves_first():
    cache = PrefixBlocks(3)
    assert cache.admit("ab") == 0
    assert cache.admit("c") == 0
    assert cache.admit("ab") == 2
    # c is the oldest; then the end of a prompt goes before its beginning.
    assert cache.admit("d") == 0
    assert cache.admit("c") == 0
    assert cache.admit("ab") == 1
    assert len(cache) == 3
    with pytest.raises(ValueError, match="-1 blocks"):
        PrefixBlocks(-1)


def test_a_single_request_and_one_instant_have_a_duration(read):
    header = "time,input_tokens,output_tokens\n"
    assert read(header + "3,1,1\n").duration == 4
    assert read(header + "3,1,1\n3,1,1\n").duration == 4


HEADER = "time,input_tokens,output_tokens,cached_tokens\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        (HEADER, "holds no requests"),
        ("a,b,c\n1,2,3\n", r"trace.csv: columns 'a', 'b', 'c' are none of these: time, input_tokens"),
        ("0,100,10\n1,100,10\n", r"columns '0', '100', '10' are none of these"),
        ("time,time,input_tokens,output_tokens\n1,1,1,1\n", r"line 1: column 'time' comes twice"),
        (HEADER + "0,1,1,0\nnan,1,1,0\n", r"line 3, column time: 'nan' is not a finite number"),
        (HEADER + "inf,1,1,0\n", r"line 2, column time: 'inf' is not a finite"),
        (HEADER + "-1,1,1,0\n", r"line 2, column time: '-1' is before the start"),
        (HEADER + "soon,1,1,0\n", r"line 2, column time: 'soon' is neither a number nor an ISO 8601 time"),
        (HEADER + ",1,1,0\n", r"line 2, column time: '' is neither"),
        (HEADER + "0,1,1,0\n2026-01-01,1,1,0\n", r"line 3, column time: '2026-01-01' is a date among numbers"),
        (HEADER + "2026-01-01,1,1,0\n0,1,1,0\n", r"line 3, column time: '0' is a date among numbers, or a num"),
        (HEADER + "0,1.5,1,0\n", r"line 2, column input_tokens: '1.5' is not a whole number"),
        (HEADER + "0,,1,0\n", r"line 2, column input_tokens: '' is not a whole"),
        (HEADER + "0,NaN,1,0\n", r"line 2, column input_tokens: 'NaN' is not a whole"),
        (HEADER + "0,0,1,0\n", r"line 2, column input_tokens: '0' is not within 1 to"),
        (HEADER + "0,1,0,0\n", r"line 2, column output_tokens: '0' is not within 1 to"),
        (HEADER + "0,1,-5,0\n", r"line 2, column output_tokens: '-5' is not within 1 to"),
        (HEADER + "0,1e300,1,0\n", r"line 2, column input_tokens: '1e300' is not within"),
        (HEADER + "0," + "9" * 5000 + ",1,0\n", r"column input_tokens: '9{56}\.\.\. is not"),
        (HEADER + "0,10,1,11\n", r"line 2, column cached_tokens: 11 is more than the 10 tokens"),
        (HEADER + "0,10,1,-1\n", r"line 2, column cached_tokens: '-1' is not within 0"),
        (HEADER + "0,10,1\n", r"line 2: 3 fields, but the header names 4"),
        (HEADER + "\n0,10,1,0,7\n", r"line 3: 5 fields, but the header names 4"),
        (HEADER + '0,10,1,"0\n', r"line 2: unexpected end of data"),
        (HEADER + "1700000000,10,1,0\n", r"covers 1\.7e\+09 s, more than a year"),
        (b"\xff\xfe\x00t", "is not UTF-8 text"),
        (b"\x1f\x8b\x08\x00broken", "is damaged gzip data"),
        (gzip.compress(HEADER.encode() + b"0,10,1,0\n" * 500)[:-12], "is damaged gzip data"),
        ('{"time": 0, "input_tokens": 1}', r"trace.csv: columns 'time', 'input_tokens' are none"),
        ('{"time": 0', r"line 1: no JSON object"),
        ('{"time":0,"input_tokens":1,"output_tokens":1}\n[1]', r"line 2: no JSON object but a list"),
        ('{"time":0,"input_tokens":1,"output_tokens":1}\n{"time":1}', r"line 2: column output_tokens is missing"),
        ('{"time":NaN,"input_tokens":1,"output_tokens":1}', r"line 1, column time: nan is not a finite"),
        ('{"time":true,"input_tokens":1,"output_tokens":1}', r"column time: True is neither"),
        ('{"time":0,"input_tokens":[1],"output_tokens":1}', r"column input_tokens: \[1\] is not a whole"),
        ('{"time":0,"input_tokens":Infinity,"output_tokens":1}', r"column input_tokens: inf is not a whole"),
        ('{"time":0,"input_tokens":1' + "0" * 400 + ',"output_tokens":1}', r"column input_tokens: 10+"),
        ('{"timestamp":0,"input_length":1,"output_length":1,"hash_ids":[[1]]}', r"column hash_ids: \[\[1\]\] is"),
        ('{"a":' + "[" * 100_000, r"line 1: no JSON object"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong_and_where(read, content, message):
    with pytest.raises(TraceError, match=message) as caught:
        read(content)
    assert len(str(caught.value)) < 800


def test_a_line_without_end_is_not_read_to_its_end(read):
    with pytest.raises(TraceError, match="line 2: longer than 1048576 characters"):
        read(gzip.compress(HEADER.encode() + b"0" * (64 << 20)))
    assert tracefiles.MAX_LINE == 1_048_576


def test_too_many_requests_are_refused(read):
    with pytest.raises(TraceError, match="line 4: more than 2 requests"):
        read(HEADER + "0,1,1,0\n" * 3, max_requests=2)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"gone\.csv cannot be read: No such file"):
        read_trace(tmp_path / "gone.csv")
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path)
