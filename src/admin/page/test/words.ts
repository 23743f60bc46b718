import assert from "node:assert/strict";
import { test } from "node:test";
import { age, brief, bytes, clock, count, dollars, duration, plural, pretty } from "../src/format";
import { address, read } from "../src/route";

test("an address means a page, and a page has one address", () => {
  for (const [page, id, params] of [
    ["traces", "", { q: "status:error a&b=c#d" }],
    ["trace", "4bf92f3577b34da6a3ce929d0e0e4736", { span: "00f067aa0ba902b7", tab: "In/Out" }],
    ["session", "a/b ?\u202e%", {}],
    ["sessions", "", {}], ["agents", "", {}], ["pipeline", "", {}],
  ] as const) {
    const url = new URL(address(page, id, params), "http://127.0.0.1");
    assert.deepEqual(read(url.pathname, url.search), { page, id, params });
  }
  assert.equal(read("/ui/", "").page, "traces");
  assert.equal(read("/ui/no/such", "").page, "traces");
  assert.equal(read("/ui/sessions/%E0%A4%A", "").id, "%E0%A4%A", "what is no encoding is taken as it is");
  assert.equal(address("traces", "", { q: "", from: undefined }), "/ui/traces");
});

test("lengths of time have the unit that suits them", () => {
  const lengths = [0, 999, 1.5e6, 25e6, 999.4e6, 1.5e9, 130e9, 9000e9, Number.NaN, -1];
  assert.deepEqual(lengths.map(duration), ["0", "1 us", "1.5 ms", "25 ms", "999 ms", "1.50 s", "2.2 min", "2.5 h", "-", "-"]);
  assert.deepEqual([0, 59, 600, 7200, 1e6, Number.NaN].map(age), ["0 s", "59 s", "10 min", "2.0 h", "11.6 d", "0 s"]);
});

test("counts, bytes and dollars are short and say what they are", () => {
  assert.deepEqual([0, 999, 1234567].map(count), ["0", "999", "1,234,567"]);
  assert.deepEqual([9999, 12345, 123456, 4.5e6, 2e9].map(brief), ["9,999", "12.3k", "123k", "4.5M", "2.0G"]);
  assert.deepEqual([0, 1023, 1536, 2 ** 31].map(bytes), ["0 B", "1023 B", "1.5 KiB", "2.0 GiB"]);
  assert.deepEqual([undefined, 0, 3.2e-7, 0.000123, 0.0525, 12.345].map(dollars), ["", "$0", "<$0.000001", "$0.000123", "$0.0525", "$12.35"]);
  assert.deepEqual([plural(1, "span"), plural(2000, "span"), plural(2, "match", "matches")], ["1 span", "2,000 spans", "2 matches"]);
});

test("a time says its day when that is another", () => {
  const at = new Date(2026, 10, 21, 5, 4, 3).getTime();
  assert.equal(clock(at, at), "05:04:03");
  assert.equal(clock(at, at + 864e5), "Nov 21 05:04:03");
  assert.equal(clock(at, at + 864e5 * 365), "Nov 21 2026 05:04:03");
});

test("long JSON gets indents, and what is short or none stays as it is", () => {
  const long = "x".repeat(60);
  assert.equal(pretty(`{"a":"${long}"}`), `{\n  "a": "${long}"\n}`);
  for (const text of ['{"a":1}', `[1, "${long}`, `{NaN${long}}`, "<b>hello</b>", "", "12"]) assert.equal(pretty(text), text);
});
