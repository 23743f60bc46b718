import assert from "node:assert/strict";
import { test } from "node:test";
import type { SpanView } from "../src/api";
import { withAfter } from "../src/api";
import { bar, busy, collapsible, found, inSight, next, rows, ticks, uncover, visible } from "../src/tree";

const span = (name: string, depth: number, more: Partial<SpanView> = {}): SpanView => ({
  span_id: name, name, depth, kind: "custom", start_unix_nano: 1000, after_ns: 0, duration_ns: 10, ...more,
});
// a > (b > c, d), e
const all = rows([span("a", 0), span("b", 1), span("c", 2), span("d", 1), span("e", 0, { error: "no" })]);

test("each row knows the one above it and where what is below it ends", () => {
  assert.deepEqual(all.map((row) => [row.parent, row.end]), [[-1, 4], [0, 3], [1, 3], [0, 4], [-1, 5]]);
});

test("what is below a folded row is not shown, and comes back when one of it is wanted", () => {
  assert.deepEqual(visible(all, new Set(["b"])), [0, 1, 3, 4]);
  assert.deepEqual(visible(all, new Set(["a", "b"])), [0, 4]);
  assert.deepEqual(visible(all, uncover(all, new Set(["a", "b", "d"]), 2)), [0, 1, 2, 3, 4]);
  assert.deepEqual([...collapsible(all)], ["b"], "the top stays open");
  const grown = rows([span("z", 0), ...all.map((row) => row.span)]);
  assert.deepEqual(visible(grown, new Set(["b"])), [0, 1, 2, 4, 5], "the same row is folded when others come before it");
});

test("a hundred thousand spans draw as many rows as are in sight, also when they stand below each other", () => {
  const deep = rows(Array.from({ length: 100_000 }, (_, at) => span(`${at}`, at)));
  assert.equal(visible(deep, new Set()).length, 100_000);
  assert.equal(uncover(deep, new Set(["5"]), 99_999).size, 0);
  assert.deepEqual(inSight(28 * 50_000, 560, 28, deep.length), [49_990, 50_030]);
  assert.deepEqual(inSight(0, 560, 28, 3), [0, 3]);
  assert.deepEqual(inSight(28 * 1000, 560, 28, 3), [3, 3], "after a fold the place may lie behind the end");
});

test("a bar stands where its span was to the nanosecond, and within the width whatever the times say", () => {
  // Numbers of today's nanoseconds since 1970 are 256 apart.
  const now = { start_unix_nano: 1_795_238_109_529_503_000 };
  const at = (after_ns: number, duration_ns: number) => bar(span("", 0, { ...now, after_ns, duration_ns }), 200);
  assert.deepEqual(at(50, 100), { left: 25, width: 50 });
  assert.deepEqual(at(51, 1), { left: 25.5, width: 0.5 });
  assert.deepEqual(at(100, 1e9), { left: 50, width: 50 }, "beyond the end");
  assert.deepEqual(at(1e9, 1e9), { left: 100, width: 0 }, "after the end");
  assert.deepEqual(bar(span("", 0), 0), { left: 0, width: 100 }, "a trace without a length");
});

test("spans know how long after their trace they started, whatever is said in it", () => {
  const at = (ns: string) => `{"start_unix_nano":${ns},"name":"\\"start_unix_nano\\":7"}`;
  const text = `{"summary":${at("1795238109529503001")},"spans":[${at("1795238109529503002")},${at("1795238109529504001")},${at("0")}]}`;
  const { spans } = JSON.parse(withAfter(text)) as { spans: SpanView[] };
  assert.deepEqual(spans.map((span) => [span.after_ns, span.name]), [1, 1000, 0].map((after) => [after, '"start_unix_nano":7']));
});

test("a scale has round times, at most six", () => {
  assert.deepEqual(ticks(1000), [0, 500]);
  assert.deepEqual(ticks(451e6), [0, 2e8]);
  for (const length of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) assert.deepEqual(ticks(length), []);
  for (let length = 1; length < 1e15; length *= 3) assert.ok(ticks(length).length <= 6);
});

test("what is looked for is found by names and errors, in whatever case, and stepped through around the end", () => {
  assert.deepEqual(found(all, " NO "), [4]);
  assert.deepEqual(found(all, "custom"), [0, 1, 2, 3, 4]);
  assert.deepEqual(found(all, "  "), []);
  assert.deepEqual([next([1, 3], -1, 1), next([1, 3], 1, 1), next([1, 3], 3, 1), next([1, 3], 1, -1), next([], 0, 1)], [1, 3, 1, 3, undefined]);
});

test("work that overlaps is counted once", () => {
  const work = (start: number, length: number, kind = "tool") =>
    span("", 0, { start_unix_nano: start, after_ns: start, duration_ns: length, kind });
  assert.equal(busy([work(20, 10), work(10, 15), work(12, 3), work(100, 5), work(0, 1000), work(1, 1000, "agent")], ["tool"]), 25);
});
