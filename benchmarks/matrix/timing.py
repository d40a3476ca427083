"""Latency, throughput and memory of systems that are all open at once."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from csr_qdrant.benchmarks.matrix.plans import Plan
from csr_qdrant.benchmarks.measure import Latency, latencies, latency_of
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import IndexSystem

Call = Callable[[], Any]
ENCODED = 50  # queries whose encoding is timed
SECONDS = 0.15  # of throughput, for each system and number of clients


def encode_latencies(plans: Sequence[Plan], queries: Matrix) -> dict[str, Latency | None]:
    """Return the time that one query takes on its way from dense vector to what is searched."""

    def calls(plan: Plan) -> list[Call]:
        encode = plan.encode
        assert encode is not None
        return [lambda row=queries[i : i + 1]: encode(row) for i in range(len(queries))]  # type: ignore[misc]

    encoding = [plan for plan in plans if plan.encode is not None]
    timed = latencies({plan.name: calls(plan) for plan in encoding}) if encoding else {}
    return {plan.name: timed.get(plan.name) for plan in plans}


def throughput(
    calls: Sequence[Call], clients: int, *, seconds: float | None = None
) -> tuple[float, Latency]:
    """Return searches a second of so many clients at once, and the latency that each one sees.

    Each client is a thread that starts at a place of its own and goes round, for SECONDS unless
    told otherwise. The engine searches without the interpreter's lock, so threads stand for
    clients of one process. What a search raises ends all of them, and is raised.
    """
    times: list[list[float]] = [[] for _ in range(clients)]
    errors: list[BaseException] = []
    gate = threading.Barrier(clients + 1)
    over = threading.Event()

    def client(number: int) -> None:
        place, own = number * len(calls) // clients, times[number]
        gate.wait()
        while not over.is_set():
            started = time.perf_counter()
            try:
                calls[place % len(calls)]()
            except BaseException as error:  # a server may go away; raised below, not lost
                errors.append(error)
                over.set()
                return
            own.append(time.perf_counter() - started)
            place += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    over.wait(SECONDS if seconds is None else seconds)
    over.set()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    if errors:
        raise errors[0]
    every = [each for own in times for each in own]
    return len(every) / taken, latency_of(every)


def measured_together(
    plans: Sequence[Plan],
    systems: Mapping[str, IndexSystem],
    queries: Matrix,
    limit: int,
    clients: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Return each system's latencies and throughput, taken in turn with all others.

    Args:
        plans: what is measured.
        systems: the same, open, by name.
        queries: those that are timed, (m, d).
        limit: results of a search.
        clients: numbers of concurrent clients.
    """
    calls = {plan.name: systems[plan.name].calls(queries, limit) for plan in plans}
    searching = latencies(calls)
    encoding = encode_latencies(plans, queries[:ENCODED])
    rates: dict[str, dict[str, float]] = {plan.name: {} for plan in plans}
    for count in clients:
        for name, own in calls.items():
            rates[name][str(count)] = throughput(own, count)[0]
    return {
        plan.name: {
            "latency_ms": {
                "encode": _percentiles(encoding[plan.name]),
                "search": _percentiles(searching[plan.name]),
            },
            "qps": rates[plan.name],
        }
        for plan in plans
    }


def _percentiles(latency: Latency | None) -> dict[str, float] | None:
    if latency is None:
        return None
    return {"p50": latency.p50_ms, "p95": latency.p95_ms, "p99": latency.p99_ms}
