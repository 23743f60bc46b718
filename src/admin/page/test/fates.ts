import assert from "node:assert/strict";
import { test } from "node:test";
import type { SinkLedger, SinkView, TraceSummary, Verified } from "../src/api";
import { type Fate, isOpen, news, ofSpans, ofTrace, portions } from "../src/fates";

const ledger = (sink: string, more: Partial<SinkLedger>): SinkLedger => ({
  sink, delivered: 0, pending: 0, dead_lettered: 0, filtered: 0, dropped: 0, before_it_joined: 0, ...more,
});
const verified = (...sinks: SinkLedger[]) => ({ sinks }) as Verified;

test("a trace's mark is what somebody should know first, and its words are all of it", () => {
  const told = ofTrace(verified(
    ledger("a", { delivered: 3, pending: 2, dead_lettered: 1 }), ledger("b", { delivered: 1200, filtered: 1 }), ledger("c", { filtered: 2 }), ledger("d", {}),
  ));
  assert.deepEqual(told.map(({ fate }) => fate), ["dead_lettered", "delivered", "filtered", undefined]);
  assert.deepEqual(told.map(({ words }) => words), ["3 delivered, 2 pending, 1 dead letter", "1,200 delivered, 1 filtered", "2 filtered", "nothing is meant for it"]);
});

test("a span of which nothing is told has what all have, or is delivered, and is unknown once not all are told", () => {
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, at) => [`${at}`, "pending" as Fate]));
  const of = ofSpans(verified(
    ledger("dead", { pending: 30_000, spans: many }), ledger("well", { delivered: 9 }), ledger("behind", { delivered: 1, pending: 1_500, spans: many }),
    ledger("picky", { delivered: 8, dead_lettered: 1, spans: { "7": "dead_lettered" } }),
  ));
  assert.deepEqual(of("7").map(({ fate }) => fate), ["pending", "delivered", "pending", "dead_lettered"]);
  assert.deepEqual(of("other").map(({ words }) => words), ["pending", "delivered", "not told", "delivered"]);
});

test("more may become of a trace that has grown, or that a sink lacks some of", () => {
  const trace = { last_position: 7 } as TraceSummary;
  const known = (position: number, more: Partial<SinkLedger>) => ({ verified: verified(ledger("a", { delivered: 1 }), ledger("b", more)), last_position: position });
  assert.ok(isOpen(trace, undefined));
  assert.ok(isOpen(trace, known(6, {})));
  assert.ok(isOpen(trace, known(7, { pending: 1 })));
  assert.ok(isOpen(trace, known(7, { dead_lettered: 1 })));
  assert.ok(!isOpen(trace, known(7, { filtered: 1 })));
});

test("a large trace keeps no small one waiting", () => {
  const traces = [9, 32_843, 4_000, 2_000, 7, 5_001].map((spans) => ({ spans }) as TraceSummary);
  assert.deepEqual(portions(traces).map((part) => part.map(({ spans }) => spans)), [[7, 9, 2_000], [4_000], [5_001], [32_843]]);
  assert.deepEqual(portions([]), []);
});

test("news is what became of an item, and not how a sink works", () => {
  const sink = (more: Partial<SinkView>) => [{ name: "a", delivered: 1, pending: 0, retries: 0, ...more } as SinkView];
  assert.equal(news(sink({})), news(sink({ retries: 9 })));
  assert.notEqual(news(sink({})), news(sink({ pending: 1 })));
  assert.notEqual(news(sink({})), news([...sink({}), ...sink({ name: "b" })]));
});
