#!/usr/bin/env python3
"""Disk, lag and catch-up time of an outage, with one tier of Spanferry and with two tiers and Kafka between them.

    python3 tools/scale.py --spans 20000 --exporters 2 --outage 6
    python3 tools/scale.py --help

The model works minute by minute and without randomness: the same arguments print the same text. Its assumptions are printed with the
result. While a backend is down, spans first fill the journals of the delivering tier; then that tier stops reading, and the topic holds
the rest for the time of its retention; older spans are lost. With one tier (`--partitions 0`) there are only the journals, and once they
are full clients are told to retry. While a topic is down, spans wait in the gateways' journals.
"""

import argparse
import math
from dataclasses import dataclass, field

MINUTE = 60
GIB = 1 << 30


@dataclass
class Plan:
    spans: float  # per second, all gateways together, on average over a day
    peak: float  # ratio of the day's busiest minute to the average
    span_bytes: int  # as received
    gateways: int
    partitions: int  # 0 for one tier
    replicas: int  # copies of the topic
    retention_hours: float
    exporters: int
    cores: float  # per daemon
    in_us: float  # CPU per span at a receiver
    hop_us: float  # CPU per span into the topic and again out of it
    out_us: float  # CPU per span into the backend
    share: float  # maximum share of its cores that a daemon should use
    backend: float  # spans per second that the backend accepts
    journal_gib: float  # `journal.bytes_max` of each daemon
    outage: float  # hours
    down: str  # what is down: backend or topic
    core_hour: float  # price of a core for an hour
    gib_month: float  # price of disk

    def load(self, minute):
        """Returns spans per second at a minute of the simulation, which begins at the busiest hour: a day is a sine around the average."""
        return self.spans * (1 + (self.peak - 1) * math.cos(2 * math.pi * minute / (24 * 60)))

    def gateway_rate(self):
        """Returns the spans per second that all gateways can receive. With one tier they also deliver."""
        cost = self.in_us + (self.hop_us if self.partitions else self.out_us)
        return self.gateways * self.cores * self.share * 1e6 / cost

    def exporter_rate(self):
        """Returns the spans per second that the delivering tier can move. Only as many daemons work as there are partitions."""
        if not self.partitions:
            return self.gateway_rate()
        return min(self.exporters, self.partitions) * self.cores * self.share * 1e6 / (self.hop_us + self.out_us)


@dataclass
class Result:
    offered: float = 0.0  # spans that clients sent
    refused: float = 0.0  # number of these that clients were told to send later
    lost: float = 0.0  # left the topic before they were read
    delivered: float = 0.0
    waiting: float = 0.0  # at the end
    gateway_max: float = 0.0  # maximum number of spans in the journals of the gateways
    topic_max: float = 0.0  # maximum in the topic
    exporter_max: float = 0.0  # maximum in the journals of the delivering tier
    lag_max_minutes: float = 0.0  # maximum age of the oldest waiting span
    caught_up_minutes: float | None = None  # after the end of the outage; None if never within the simulation
    hours: list = field(default_factory=list)  # (hour, load, spans waiting at each of the three, spans delivered per second)


def simulate(plan: Plan, days: float = 7) -> Result:
    room = plan.journal_gib * GIB / plan.span_bytes
    two_tiers = plan.partitions > 0
    room_in, room_out = room * plan.gateways, room * plan.exporters
    gateway = topic = exporter = 0.0  # spans waiting in each place
    accepted, gone, oldest = [0.0], 0.0, 0  # spans accepted until each minute, to compute the age of the oldest
    result = Result()
    for minute in range(int(days * 24 * 60)):
        is_down = minute < plan.outage * 60
        backend_up = not (is_down and plan.down == "backend")
        topic_up = two_tiers and not (is_down and plan.down == "topic")
        can_move, can_send = plan.gateway_rate() * MINUTE, min(plan.exporter_rate(), plan.backend) * MINUTE
        offered = plan.load(minute) * MINUTE
        # Spans that leave a journal in this minute free space in it.
        leaves = can_move if topic_up else can_send if backend_up and not two_tiers else 0.0
        taken = min(offered, can_move, room_in - gateway + min(gateway + offered, leaves))
        gateway += taken
        lost = 0.0
        if two_tiers:
            moved = min(gateway, can_move) if topic_up else 0.0
            gateway, topic = gateway - moved, topic + moved
            lost = max(0.0, topic - (accepted[-1] + taken - accepted[max(0, minute + 1 - int(plan.retention_hours * 60))]))
            topic -= lost
            leaves = min(exporter + topic, can_send) if backend_up else 0.0
            read = min(topic, plan.exporter_rate() * MINUTE, room_out - exporter + leaves) if topic_up else 0.0
            topic, exporter = topic - read, exporter + read
            sent = min(exporter, can_send) if backend_up else 0.0
            exporter -= sent
        else:
            sent = min(gateway, can_send) if backend_up else 0.0
            gateway -= sent
        accepted.append(accepted[-1] + taken)
        gone += sent + lost
        while oldest < minute and accepted[oldest + 1] <= gone + 0.5:
            oldest += 1
        waiting = gateway + topic + exporter
        result.offered += offered
        result.refused += offered - taken
        result.lost += lost
        result.delivered += sent
        result.waiting = waiting
        result.gateway_max = max(result.gateway_max, gateway)
        result.topic_max = max(result.topic_max, topic)
        result.exporter_max = max(result.exporter_max, exporter)
        if waiting > 0.5:
            result.lag_max_minutes = max(result.lag_max_minutes, minute - oldest)
        if not is_down and result.caught_up_minutes is None and waiting <= 0.5:
            result.caught_up_minutes = minute - plan.outage * 60
        if minute % 60 == 0:
            result.hours.append((minute // 60, plan.load(minute), gateway, topic, exporter, sent / MINUTE))
    return result


def cost_of_a_month(plan: Plan, result: Result) -> tuple[float, float]:
    """Returns the cost of cores and of disk: journals at their maximum, the topic at its largest or at its size after a full retention."""
    daemons = plan.gateways + (plan.exporters if plan.partitions else 0)
    topic = max(result.topic_max, plan.spans * plan.retention_hours * 3600) if plan.partitions else 0.0
    disk = daemons * plan.journal_gib + topic * plan.span_bytes * plan.replicas / GIB
    return daemons * plan.cores * plan.core_hour * 730, disk * plan.gib_month


def report(plan: Plan) -> str:
    result = simulate(plan)
    gib = lambda spans: f"{spans * plan.span_bytes / GIB:.1f} GiB"
    cores, disk = cost_of_a_month(plan, result)
    tiers = f"{plan.gateways} gateways -> {plan.partitions} partitions -> {plan.exporters} exporters" if plan.partitions else f"{plan.gateways} daemons, one tier"
    lines = [
        f"{tiers}; {plan.down} down for {plan.outage:g} h from the busiest minute on",
        "",
        "hour    load/s   at gateways      in topic  at exporters   delivered/s",
    ]
    last = plan.outage + (result.caught_up_minutes or 0) / 60 + 1
    for hour, load, gateway, topic, exporter, sent in result.hours:
        if hour <= last:
            lines.append(f"{hour:4} {load:9,.0f} {gib(gateway):>13} {gib(topic):>13} {gib(exporter):>13} {sent:13,.0f}")
    caught_up = "never within seven days" if result.caught_up_minutes is None else f"{result.caught_up_minutes / 60:.1f} h after the outage"
    lines += [
        "",
        f"caught up          {caught_up}; the oldest span was {result.lag_max_minutes / 60:.1f} h old",
        f"disk at most       {gib(result.gateway_max)} at gateways, {gib(result.topic_max)} x {plan.replicas} in the topic, {gib(result.exporter_max)} at exporters",
        f"clients told to retry       {result.refused:,.0f} spans; lost in the topic  {result.lost:,.0f}",
        f"capacity           {plan.gateway_rate():,.0f} spans/s in, {min(plan.exporter_rate(), plan.backend):,.0f} spans/s out, of {plan.spans * plan.peak:,.0f} at the peak",
        f"a month            {cores:,.0f} for cores, {disk:,.0f} for disk (brokers' own cores and traffic are not in it)",
        "",
        f"Assumed: a span has {plan.span_bytes} bytes everywhere, uncompressed. CPU for a span: {plan.in_us:g} us in, {plan.hop_us:g} us for each side of the",
        f"topic, {plan.out_us:g} us out; a daemon uses {plan.share:.0%} of {plan.cores:g} cores at most. Partitions are equally busy. The load is a sine over the day.",
        f"The backend takes {plan.backend:,.0f} spans/s, at once when it is back. A core is {plan.core_hour:g} an hour, a GiB {plan.gib_month:g} a month.",
    ]
    return "\n".join(lines) + "\n"


def arguments(words=None) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = lambda name, default, what, kind=float, **more: parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} [{default}]", **more)
    option("spans", 20_000, "spans a second, on average")
    option("peak", 2.0, "the busiest minute over the average, 1 to 2")
    option("span-bytes", 6_700, "bytes of a span", int)
    option("gateways", 2, "daemons that receive", int)
    option("partitions", 12, "of the topic; 0 for one tier", int)
    option("replicas", 3, "copies of the topic", int)
    option("retention-hours", 24, "of the topic")
    option("exporters", 4, "daemons that deliver", int)
    option("cores", 2, "of each daemon")
    option("in-us", 8.5, "CPU for a span at a receiver")
    option("hop-us", 30, "CPU for a span at each side of the topic")
    option("out-us", 52, "CPU for a span into the backend")
    option("share", 0.7, "of its cores that a daemon uses at most")
    option("backend", 50_000, "spans a second that the backend takes")
    option("journal-gib", 64, "journal.bytes_max of each daemon")
    option("outage", 6, "hours")
    option("down", "backend", "what is down", str, choices=["backend", "topic"])
    option("core-hour", 0.04, "price of a core for an hour")
    option("gib-month", 0.08, "price of a GiB of disk for a month")
    return Plan(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    print(report(arguments()), end="")
