"""What the page says in words: method and limits."""

INTRODUCTION = """\
# Autoscaling: how far from the best

Our decision, every published rule that we know of and a planner that knows the future, on the same requests, in the
same simulator. {origin}

- Command: `{command}`, {workers} processes
- Date: {date}
- Machine: {machine}
- Took {seconds} here; all results together took {processor} of one core{kept}

{warning}## Bars

One default configuration of ours for all scenarios.

{verdict}
## How it is measured

- **Engine**: Llama-3.1-8B in FP8 on one H100 under vLLM with its defaults: {cache:,} tokens of cache, {sequences:,}
  sequences. Step times follow the operator's own model, calibrated on public measurements. One replica answers
  {capacity:.1f} requests/s within the objective at m-large's mean request ({inputs:.0f} + {outputs:.0f} tokens, batch
  {batch}); the operator, which does not know beforehand how exact its model is, would plan with {planned:.1f}.
- **Objective**: a request attains if its first token comes within {first:g} s + {per:g} ms per prompt token and the
  mean time between its tokens is at most {between:.0f} ms. What is refused or abandoned has missed.
- **Simulator**: request by request; continuous batching, chunked prefill, cache limit, preemption. A replica is billed
  from the decision to start it until it has drained. Start times are log-normal around the median (10 %).
- **Loads**: "N replicas" is the highest mean rate over ten minutes divided by what one replica answers, both at the
  whole trace's mean request. m-large is played on four stretches of six hours that a rule chooses (highest, steepest,
  lowest, median load) and, as a flow, over all 14 days. Within a stretch a replica's capacity, which every rule is
  told, is that at the stretch's own mean request; requests get longer and shorter within it. The
  maximum of every policy is {most:g} times what the busiest minute of the whole load needs (of m-large: ten minutes).
- **Published rules** are implemented from their sources, with the documented settings and with one tuned for each
  scenario: of up to a few dozen the cheapest that attains 99 % as a flow on the very requests of the first seed, or
  else the one that attains the most. They are told the trace's mean request; what needs the whole trace is given it.
- **Clairvoyant**: knows every arrival and length, not how long each start will take. For each minute it picks whole
  replicas by dynamic programming over a model of misses, then measures the true misses near its schedule in the
  simulator and plans again. Its cost is what the simulator bills for a schedule that it played. The true optimum may
  be cheaper, which would make our ratio worse; by how much is not known.
- **Zero-lead bound**: each minute, the fewest replicas whose capacity is that minute's mean rate, started in no time.
  It is a figure to compare by, not a true bound: a replica answers more than its capacity for some seconds, and one
  request in a hundred may miss, so that even the clairvoyant can be below it.
- **Proof of work**: the run fails, and nothing is written, unless every policy played every request of its trace, all
  requests are accounted for, all played the same ones, and the clairvoyant's schedule covers every minute.

"""

LIMITS = """\
## Limits

- The simulated engine is the model that the operator plans with. How well that model meets real engines is on
  [another page](models-and-gpus.md); here it cannot show.
- Lengths of m-large's requests are drawn around the mean of their ten minutes: the single requests are not published.
  Between tenants there are no differences.
- 14 days as a flow: bursts within ten minutes are drawn with the variance of the request-level runs; what a policy
  sees of latencies is that of mean requests. Lengths change only every ten minutes.
- The clairvoyant's ratio holds for the attainment that each has: where ours attains more or less than it, cost and
  attainment must be read together.
- The rules are tuned as a flow and then played request by request, so a tuned setting may miss the 99 % that it was
  chosen for. A finer search would find better ones.
- Loads, scales and objectives are few, and every figure is of a simulation. `modelyard simulate` plays your own traces.
"""

COLUMNS = """\
Cost is relative to the clairvoyant's on the same requests. \u00b1: highest less lowest of the seeds. Reversals: changes
of direction within one start time. Frontier: no other rule on the list attains as much or more for less or the same.

"""

FLOW = """\
### All rules as a flow

The first seed's requests in steps of ten seconds; cost relative to the clairvoyant's request by request. Only the
best {count} of the published rules that need no hindsight were played request by request.
"""
