import assert from "node:assert/strict";
import { test } from "node:test";
import type { StatsRow, Traces, TraceSummary, Turn } from "../src/api";
import { paired, split } from "../src/conversation";
import { which } from "../src/filter";
import { curl, extent, matrix, merged, readUpTo, seenFrom, sessions, sorted, strip, unsaid, wordFor } from "../src/lists";

const trace = (id: string, second: number, more: Partial<TraceSummary> = {}): TraceSummary => ({
  trace_id: id, name: id, start_unix_nano: second * 1e9, duration_ns: 1e9, status: "ok", spans: 1, errors: 0, input_tokens: 1,
  output_tokens: 1, total_tokens: 2, agents: [], tools: [], models: [], last_position: 0, ...more,
});

test("what has grown takes the place of its row, and what is new is told apart", () => {
  const shown = [trace("b", 2), trace("a", 1)];
  const { grown, fresh } = sorted(shown, [trace("c", 3), trace("a", 1, { spans: 9 })]);
  assert.deepEqual(fresh, ["c"]);
  assert.deepEqual(merged(shown, grown).map((row) => [row.trace_id, row.spans]), [["b", 1], ["a", 9]]);
});

test("a restarted daemon that reads its journal again brings nothing new, and one with another journal everything", () => {
  const read = (position: number, percent?: number) => ({ position, index: { rebuilding_percent: percent } }) as Traces;
  assert.deepEqual([readUpTo(undefined, read(7)), readUpTo(7, read(9)), readUpTo(9, read(9))], [7, 9, 9]);
  assert.deepEqual([readUpTo(9, read(3, 30)), readUpTo(9, read(3))], [9, undefined]);
});

test("every trace is in one piece of the strip", () => {
  const traces = [trace("a", 0), trace("b", 5, { status: "error" }), trace("c", 10)];
  const pieces = strip(traces, 0, 10_000, 4);
  assert.deepEqual(pieces.map(({ ok, failed }) => [ok, failed]), [[1, 0], [0, 0], [0, 1], [1, 0]]);
});

test("one trace from long ago leaves room for all others, and a few of few are no outliers", () => {
  const now = 1_795_238_109_529;
  const minutes = Array.from({ length: 40 }, (_, at) => now + at * 60_000);
  assert.deepEqual(extent(minutes), [now, now + 39 * 60_000]);
  assert.deepEqual(extent([...minutes, 0, now + 1e12]), [now, now + 39 * 60_000]);
  const [from, to] = extent([...minutes, 0]);
  const pieces = strip([...minutes, 0].map((at) => trace("", at / 1e3)), from, to + 1, 40);
  assert.deepEqual(pieces.map(({ ok }) => ok), [2, ...Array(39).fill(1)], "it counts in the outer piece");
  const clusters = minutes.map((at, place) => (place < 20 ? at - 1e9 : at));
  assert.deepEqual(extent(clusters), [now - 1e9, now + 39 * 60_000], "half of them are no outliers");
  assert.deepEqual(extent([5, now]), [5, now]);
});

test("the sums of a session are those of its traces", () => {
  const own = { session: "s" };
  const [session, ...others] = sessions([
    trace("b", 9, { ...own, status: "error", cost_usd: 0.5, agents: ["B"] }), trace("x", 8), trace("a", 1, { ...own, agents: ["A", "B"] }),
  ]);
  assert.deepEqual(others, []);
  assert.deepEqual(session, { id: "s", turns: 2, errors: 1, tokens: 4, cost: 0.5, agents: ["B", "A"], user: undefined, first: 1000, last: 10_000 });
});

test("a turn is shown once, though each request of a session repeats those before", () => {
  const [ask, say] = ["user", "assistant"].map((role) => (text: string) => ({ role, text })) as [(text: string) => Turn, (text: string) => Turn];
  const seen = new Set<string>();
  assert.equal(unsaid(seen, [ask("a"), say("b")]).length, 2);
  assert.deepEqual(unsaid(seen, [ask("a"), say("b"), ask("c"), say("d")]), [ask("c"), say("d")]);
  assert.deepEqual(unsaid(seen, [say("new instructions"), ask("a"), say("b"), ask("a"), say("b")]), [say("new instructions"), ask("a"), say("b")], "asked again");
});

test("the filter of the address is the command line's", () => {
  assert.deepEqual(which({ q: 'agent:"A B" -tool:x', from: "2h", span: "1" }), { filter: ['agent:"A B" -tool:x'], from: "2h" });
  assert.deepEqual(which({ q: "", to: "" }), {});
  assert.equal(wordFor("agent", "Desk: 1"), 'agent:"=Desk: 1"');
  assert.equal(wordFor("session", '"a" bc'), 'session:" bc"');
});

test("a command line ends where the document does, whatever is in it, and goes where the receivers are", () => {
  assert.match(curl("x\nSPANFERRY\ny", "http://h:9", false), /'http:\/\/h:9\/v1\/traces' .*<<'SPANFERRY_'\nx\nSPANFERRY\ny\nSPANFERRY_\n$/);
  assert.match(curl("x", "http://h:9", true), /json' -H 'Authorization: Bearer YOUR_TOKEN' --data-binary /);
  assert.match(curl("x", "unix:/run/a.sock:", false), /--unix-socket '\/run\/a.sock' 'http:\/\/localhost\/v1\/traces' /);
  assert.equal(seenFrom("box", "https://127.0.0.1:4318"), "https://box:4318");
  assert.equal(seenFrom("box", "http://10.0.0.7:4318"), "http://10.0.0.7:4318");
});

test("calls stand apart from what is said", () => {
  assert.deepEqual(split('I look.\n-> look_up({"id":7})'), [{ text: "I look." }, { call: "look_up", text: '{"id":7}' }]);
  assert.deepEqual(split('get_weather({"city":"Paris"})\n21C'), [{ call: "get_weather", text: '{"city":"Paris"}' }, { text: "21C" }]);
  assert.deepEqual(split("see f(x) for\nmore"), [{ text: "see f(x) for\nmore" }]);
  assert.deepEqual(split("\n"), []);
});

test("a tool's arguments are shown once, with the call or with the tool", () => {
  const called = { role: "assistant", text: '-> f({"id": 7})' };
  const done = { role: "tool", text: 'f({"id":7})\nseven' };
  assert.deepEqual(paired([called, done, done]), [
    [{ call: "f", text: '{"id": 7}' }],
    [{ call: "f", text: "" }, { text: "seven" }],
    [{ call: "f", text: '{"id":7}' }, { text: "seven" }],
  ]);
});

test("handoffs are a table of who hands over to whom", () => {
  const rows = [["A -> B", 3], ["B -> C", 2], ["A -> C -> D", 1]].map(([name, count]) => ({ name, count }) as StatsRow);
  const { from, to, counts } = matrix(rows);
  assert.deepEqual([from, to], [["A", "B"], ["B", "C", "C -> D"]]);
  assert.deepEqual(from.map((giver) => to.map((taker) => counts.get(giver)?.get(taker) ?? 0)), [[3, 0, 1], [0, 2, 0]]);
});
