"""Reading the text format, and totals over restarts and several Envoys."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.answering import Attempts
from modelyard.gateway.counters import Answered, CounterTotals, GatewayCounters, parse_counters, sum_attempts

PAGE = """\
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_cluster_name="a"} 4
# TYPE envoy_modelyard_requests counter
envoy_modelyard_requests{route="team/a",model="llama",deployment="team/a",code="200"} 5
envoy_modelyard_requests{route="team/a",model="llama",deployment="team/a",code="204"} 1
envoy_modelyard_requests{route="team/a",model="llama",deployment="",code="0"} 2
envoy_modelyard_requests{route="",model="",deployment="",code="404"} 3
envoy_modelyard_arrivals_http_local_rate_limit_enabled{route="team/a_2e1"} 9
envoy_modelyard_arrivals_http_local_rate_limit_ok{route="team/a_2e1"} 1
envoy_modelyard_ended{route="team/a_2e1_230"} 8
envoy_modelyard_ended{route=""} 6
envoy_modelyard_prompt_tokens{route="team/a",model="_2522",deployment="we\\"ird\\\\"} 12345678901234
envoy_modelyard_prompt_tokens{route="team/a",model="llama",deployment="team/a",tenant="blue.team"} 70
envoy_modelyard_cached_tokens{route="team/a",model="llama",deployment="team/a",tenant="blue.team"} 30
envoy_modelyard_cache_read_tokens{route="team/a",model="llama",deployment="team/a",tenant="blue.team"} 5
envoy_modelyard_cache_write_tokens{route="team/a",model="llama",deployment="team/a",tenant="blue.team"} 7
envoy_modelyard_estimated_requests{route="team/a",model="llama",deployment="team/a",tenant=""} 1
envoy_modelyard_estimated_prompt_tokens{route="team/a",model="llama",deployment="team/a",tenant=""} 20
envoy_modelyard_estimated_completion_tokens{route="team/a",model="llama",deployment="team/a",tenant=""} 3
envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="provider_3aacme/large-4_2e1"} 7
envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="provider_3aacme/large-4_2e1"} 1
envoy_cluster_retry_upstream_rq{envoy_response_code="502",envoy_cluster_name="provider_3aacme/large-4_2e1"} 2
envoy_cluster_retry_upstream_rq{envoy_response_code="429",envoy_cluster_name="provider_3aacme/large-4_2e1"} 3
envoy_cluster_upstream_rq_total{envoy_cluster_name="provider_3aacme/large-4_2e1"} 13
envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="provider_3aacme/large-4_2e1"} 4
envoy_cluster_upstream_cx_destroy_remote_with_active_rq{envoy_cluster_name="provider_3aacme/large-4_2e1"} 5
envoy_cluster_upstream_rq_per_try_timeout{envoy_cluster_name="provider_3aacme/large-4_2e1"} 6
envoy_cluster_upstream_rq_pending_total{envoy_cluster_name="provider_3aacme/large-4_2e1"} 9
envoy_server_uptime{} 42
"""


def test_parse():
    counters = parse_counters(PAGE)
    llama = Answered("team/a", "llama", "team/a")
    assert counters.arrivals == {"team/a.1": 9}
    assert counters.ended == {"team/a.1#0": 8}, "what was refused before it arrived ends under no name"
    assert counters.requests == {
        (llama, "2xx"): 6,
        (Answered("team/a", "llama", ""), "0xx"): 2,
        (Answered("", "", ""), "4xx"): 3,
    }
    blue = Answered("team/a", "llama", "team/a", "blue.team")
    # Tokens that Anthropic's API tells beside those of the prompt are part of them here.
    assert counters.prompt_tokens == {
        Answered("team/a", '"', 'we"ird\\'): 12345678901234,
        blue: 70 + 5 + 7,
    }
    assert counters.cached_tokens == {blue: 30 + 5}
    assert counters.completion_tokens == {}
    assert counters.estimated_requests == {llama: 1}
    assert counters.estimated_prompt_tokens == {llama: 20}
    assert counters.estimated_completion_tokens == {llama: 3}
    assert counters.uptime == 42
    assert sum_attempts(counters) == {
        "provider:acme/large-4.1": Attempts(
            sent=13, answered=7, limited=3, failed=1 + 2 + 4 + 5 + 6, lost=5 + 6
        )
    }


def test_an_empty_page_has_no_counts():
    assert parse_counters("") == GatewayCounters()


def arrivals(**counts):
    return GatewayCounters(arrivals=counts)


def test_a_restart_counts_from_zero():
    totals = (
        CounterTotals().advance("x", arrivals(a=5)).advance("x", arrivals(a=7)).advance("x", arrivals(a=3))
    )
    assert totals.totals.arrivals == {"a": 10}


def test_a_counter_that_is_gone_for_a_while_is_not_lost():
    totals = CounterTotals().advance("x", arrivals(a=5)).advance("x", arrivals()).advance("x", arrivals(a=2))
    assert totals.totals.arrivals == {"a": 7}


def test_several_envoys_add_up_and_may_be_forgotten():
    totals = CounterTotals().advance("x", arrivals(a=5)).advance("y", arrivals(a=2, b=1)).forget("x")
    assert totals.totals.arrivals == {"a": 7, "b": 1}
    assert totals.last.keys() == {"y"}


def test_an_envoy_that_is_not_known_counts_from_its_first_reading_if_it_is_old():
    """Another operator's, or one that was cut off: its lifetime would be the demand of one moment."""

    def old(count, uptime):
        return GatewayCounters(arrivals={"a": count}, uptime=uptime)

    first = CounterTotals().advance("x", old(1_000_000, 86_400), None)
    assert first.totals.arrivals == {"a": 1_000_000}, "nobody was shown totals that these would be added to"
    found = first.advance("y", old(2_000_000, 86_400), 2.0)
    assert found.totals == first.totals
    assert found.advance("y", old(2_000_010, 86_402), 2.0).totals.arrivals == {"a": 1_000_010}
    assert found.advance("z", old(8, 3), 2.0).totals.arrivals == {"a": 1_000_008}, "it has just started"
    assert found.advance("y", old(5, 1), 2.0).totals.arrivals == {"a": 1_000_005}, "it started again"
    waited = first.advance("z", old(90, 50), 60.0)
    assert waited.totals.arrivals == {"a": 1_000_090}, "the reading before is older than the Envoy"


@given(st.lists(st.tuples(st.sampled_from("xy"), st.booleans(), st.integers(0, 50))))
def test_totals_equal_what_was_counted(steps):
    """Each step is a number of new requests at one Envoy, perhaps after it was restarted."""
    totals, running, expected = CounterTotals(), {"x": 0, "y": 0}, 0
    for node, restarted, new in steps:
        # A restart that is followed by as many requests as before cannot be seen in the counters.
        if restarted and new < running[node]:
            running[node] = 0
        running[node] += new
        expected += new
        before = totals.totals.arrivals.get("a", 0)
        totals = totals.advance(node, arrivals(a=running[node]))
        assert totals.totals.arrivals["a"] >= before
    assert totals.totals.arrivals.get("a", 0) == expected
