// A reader of the console: what they see is compared with the answers of the same port. `main.rs` starts the daemons.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const { PLAIN, PLAIN_HTTP, ASKING, OPEN, BACKEND, TOKEN, GOLDEN, IMAGES } = process.env;
const UI = `http://${PLAIN}/ui`;
const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];
const AXE = readFileSync(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8");
const SPANS = 32_843;

// === The daemon and its environment ===

async function ask(path, body = {}, port = PLAIN) {
  const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = JSON.parse((await (await fetch(`http://${port}/api/v1/${path}`, init)).text()).trim().split("\n").pop());
  assert.ok(reply.done, `${path}: ${reply.error}`);
  return reply.done;
}

const status = async () => (await fetch(`http://${PLAIN}/status`)).json();

async function send(path, headers, body) {
  const response = await fetch(`http://${PLAIN_HTTP}${path}`, { method: "POST", headers, body });
  assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`);
}

const sendItems = (data) => send("/v1/traces/ingest", { "Content-Type": "application/json" }, JSON.stringify({ data }));

/** Returns what the Agents SDK sent in a scenario, with times shifted so that it ended this many seconds ago. */
function captured(scenario, ago) {
  const folder = `${GOLDEN}/agents-sdk/${scenario}`;
  const bodies = readdirSync(folder).filter((name) => name.endsWith(".body.json")).sort().map((name) => readFileSync(`${folder}/${name}`, "utf8"));
  const time = /"((?:started|ended)_at)":\s*"([\d-]+T[\d:]+(?:\.\d{1,3})?)(\d*)(?:Z|\+00:00)"/g;
  const ends = bodies.flatMap((body) => [...body.matchAll(time)].map(([, , at]) => Date.parse(`${at}Z`)));
  const shift = Date.now() - ago * 1000 - Math.max(...ends);
  const moved = (_, name, at, micros) => `"${name}":"${new Date(Date.parse(`${at}Z`) + shift).toISOString().slice(0, -1)}${micros}Z"`;
  return bodies.flatMap((body) => JSON.parse(body.replace(time, moved)).data);
}

/** A customer who asks for a refund, handled by two agents and a tool that fails once. */
function refund(ago, session) {
  const [trace, end] = [`trace_${randomUUID().replaceAll("-", "")}`, Date.now() - ago * 1000];
  const at = (seconds) => new Date(end + (seconds - 9.4) * 1000).toISOString();
  const span = (id, parent, from, to, span_data, error = null) => ({
    object: "trace.span", id: `span_${trace.slice(6, 14)}${id}`, trace_id: trace, parent_id: parent && `span_${trace.slice(6, 14)}${parent}`,
    started_at: at(from), ended_at: at(to), span_data, error,
  });
  const messages = [
    { role: "system", content: "You handle refunds. Look the order up before you promise anything." },
    { role: "user", content: "My order A-1042 came broken. I would like my money back." },
  ];
  const call = (name, given) => ({ role: "assistant", content: null, tool_calls: [{ id: `call_${name}`, type: "function", function: { name, arguments: JSON.stringify(given) } }] });
  const generation = (model, output, [input_tokens, output_tokens]) => ({ type: "generation", model, model_config: {}, input: messages, output: [output], usage: { input_tokens, output_tokens } });
  const tool = (name, input, output) => ({ type: "function", name, input: JSON.stringify(input), output });
  const order = { order: "A-1042" };
  return [
    { object: "trace", id: trace, workflow_name: "Refund request", group_id: session, metadata: { user_id: "u-118" } },
    span("a1", null, 0, 3.1, { type: "agent", name: "Triage", handoffs: ["Billing"], tools: [], output_type: "str" }),
    span("g1", "a1", 0.05, 0.4, { type: "guardrail", name: "on_topic", triggered: false }),
    span("m1", "a1", 0.4, 3.0, generation("gpt-5-mini", call("transfer_to_billing", {}), [412, 18])),
    span("h1", "a1", 3.0, 3.1, { type: "handoff", from_agent: "Triage", to_agent: "Billing" }),
    span("a2", null, 3.1, 9.4, { type: "agent", name: "Billing", handoffs: [], tools: ["look_up_order", "issue_refund"], output_type: "str" }),
    span("m2", "a2", 3.1, 5.0, generation("gpt-5", call("look_up_order", order), [655, 31])),
    span("t1", "a2", 5.0, 5.4, tool("look_up_order", order, '{"order":"A-1042","total":"49.90","status":"delivered"}')),
    span("m3", "a2", 5.4, 5.9, generation("gpt-5", call("issue_refund", { ...order, amount: "49.90" }), [742, 27])),
    span("t2", "a2", 5.9, 6.6, tool("issue_refund", { ...order, amount: "49.90" }, null), { message: "the payment service did not answer", data: { after: "700ms" } }),
    span("m4", "a2", 6.6, 7.2, generation("gpt-5", call("issue_refund", { ...order, amount: "49.90" }), [801, 27])),
    span("t3", "a2", 7.2, 7.8, tool("issue_refund", { ...order, amount: "49.90" }, '{"refund":"R-77","state":"sent"}')),
    span("m5", "a2", 7.8, 9.4, generation("gpt-5", { role: "assistant", content: "I am sorry that it came broken. 49.90 is on its way back to your card, as refund R-77." }, [902, 64])),
  ];
}

const SCENARIOS = [
  "python/p03_parallel_tools", "python/p05_tool_error_hard",
  "python/p06_input_guardrail", "python/p08_mcp", "python/p17_model_error", "python/p21_agent_as_tool", "python/p11_chat_stream",
  "python/p22_multi_run", "python/p01_hello_responses", "js/j02_handoff_chain", "js/j03_parallel_tools", "js/j09_chat_completions",
  "js/j07_mcp", "js/j10_chat_stream", "python/p23_all_span_types", "python/p04_tool_error_soft", "js/ext_full_content_response",
];

/** Sends captured requests of OpenTelemetry exporters unchanged. */
async function sendOtlp() {
  for (const folder of ["openinference-openai-agents", "traceloop-openai", "logfire-openai-agents", "vercel-ai-sdk", "otel-openai-agents-v2"]) {
    for (const name of readdirSync(`${GOLDEN}/otlp/${folder}`).filter((name) => name.endsWith(".headers.json"))) {
      const { path, headers } = JSON.parse(readFileSync(`${GOLDEN}/otlp/${folder}/${name}`));
      if (!path.endsWith("/v1/traces")) continue;
      const kept = Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value]).filter(([name]) => /^content-(type|encoding)$/.test(name)));
      await send("/v1/traces", kept, readFileSync(`${GOLDEN}/otlp/${folder}/${name.replace(".headers.json", "")}`));
    }
  }
}

/** Makes `main.rs` kill the daemon and start it again, and waits until its index is rebuilt: until then a list has part of the traces. */
async function restarted() {
  await page.goto("about:blank");
  console.log("restart");
  await once(process.stdin, "data");
  while ((await ask("traces", { limit: 1 })).index.rebuilding_percent !== undefined);
}

/** The backend of the sink `warehouse`. */
const warehouse = { takes: false };
createServer((request, response) => {
  request.resume().on("end", () => {
    response.writeHead(warehouse.takes ? 200 : 400, { "Content-Type": warehouse.takes ? "application/x-protobuf" : "text/plain" });
    response.end(warehouse.takes ? "" : "no such column");
  });
}).listen(Number(BACKEND.split(":")[1]), "127.0.0.1").unref();

// === The browser ===

assert.ok(CHROMIUM, "there is no Chromium; apt-get install chromium brings one");
mkdirSync(IMAGES, { recursive: true });
const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
const strangers = [];
const complaints = [];

async function reader(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 860 }, colorScheme: "light", permissions: ["clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  page.on("request", (request) => {
    if (new URL(request.url()).hostname !== "127.0.0.1") strangers.push(request.url());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    const isExpected = /status of 40[0139]/.test(message.text()) || message.location().url.endsWith("/favicon.ico");
    if (message.type() === "error" && !isExpected) complaints.push(message.text());
  });
  return page;
}

async function step(sentence, act) {
  const begun = performance.now();
  try {
    await act();
  } catch (error) {
    await page.screenshot({ path: `${IMAGES}/failed.png` });
    throw new Error(`${sentence}\n${error.stack}`);
  }
  console.log(`ok    ${sentence} (${Math.round(performance.now() - begun)} ms)`);
}

const text = (selector) => page.locator(selector).first().innerText();
const names = () => page.locator("table.list tbody tr td:first-child a").allInnerTexts();
const press = async (...keys) => {
  for (const key of keys) await page.keyboard.press(key);
};
const chosen = () => page.locator(".rows .span.chosen .name").innerText();
const tab = (name) => page.getByRole("tab", { name }).click();

async function axe(where) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const said = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).slice(0, 3).join(" | ")}`);
  assert.deepEqual(said, [], `axe at ${where}`);
}

let page = await reader();

// === The list ===

await step("an empty console says what to do", async () => {
  await page.goto(`http://${PLAIN}/`);
  assert.equal(new URL(page.url()).pathname, "/ui/");
  await page.getByRole("heading", { name: "No traces yet" }).waitFor();
  await axe("the empty list");
});

await step("the first trace is there by itself", async () => {
  await sendItems(captured("python/p10_chat_completions", 2));
  await page.locator("table.list tbody tr").first().waitFor();
});

await step("what is new waits behind a button, and no row moves", async () => {
  const before = await names();
  await sendItems(captured("python/p02_handoff_chain", 1));
  await page.getByRole("button", { name: "1 new" }).waitFor();
  assert.deepEqual(await names(), before);
  await page.getByRole("button", { name: "1 new" }).click();
  await page.getByRole("link", { name: "Customer support" }).waitFor();
  assert.equal((await names()).length, before.length + 1);
});

for (const [place, scenario] of SCENARIOS.entries()) await sendItems(captured(scenario, 60 + 170 * place));
for (const ago of [5, 800, 2200]) await sendItems(refund(ago, "chat-118"));
await sendOtlp();

await step("the filter is the command line's, stays in the address, and shows where it is wrong", async () => {
  await page.goto(`${UI}/traces`);
  await page.locator("table.list tbody tr").nth(10).waitFor();
  await press("/");
  await page.keyboard.type("status:error");
  await press("Enter");
  await page.waitForFunction(() => [...document.querySelectorAll("tbody .state")].every((state) => state.textContent === "error"));
  assert.equal(new URL(page.url()).searchParams.get("q"), "status:error");
  const { count } = await ask("traces", { filter: "status:error", limit: 1 });
  assert.match(await text("[role=status]"), new RegExp(`of ${count} traces`));
  await page.goto(`${UI}/traces?q=${encodeURIComponent("agent:a agnt:b")}`);
  const alert = page.getByRole("alert");
  await alert.waitFor();
  assert.match(await alert.innerText(), /agent:a agnt:b\n +\^\^\^\^\n/);
  assert.equal(await page.inputValue("#filter"), "agent:a agnt:b");
  await axe("a mistake in the filter");
  await page.getByRole("button", { name: "Clear" }).click();
  await page.locator("table.list tbody tr").nth(10).waitFor();
});

await step("a piece of the strip is chosen by dragging", async () => {
  const box = await page.locator(".strip svg").boundingBox();
  await page.mouse.move(box.x + box.width * 0.95, box.y + 20);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width, box.y + 20, { steps: 3 });
  await page.mouse.up();
  await page.waitForURL(/from=.*to=/);
  await page.getByRole("button", { name: "Clear" }).click();
  await page.waitForURL((url) => url.search === "");
});

// === A trace ===

const { traces: all } = await ask("traces", { limit: 1000 });
const weather = all.find((trace) => trace.name === "Weather workflow" && trace.models.length > 0);
const refunded = all.find((trace) => trace.name === "Refund request");
const broken = all.find((trace) => trace.errors > 1 && trace.spans > 4);

await step("a trace is opened, read and left by keyboard alone", async () => {
  await page.goto(`${UI}/traces`);
  await page.locator("table.list tbody tr").nth(10).waitFor();
  await press("j", "j", "k", "j");
  const name = await page.evaluate(() => document.activeElement.textContent);
  assert.equal(name, (await names())[1]);
  await press("Enter");
  await page.locator(".rows .span").first().waitFor();
  assert.equal(await text("h1"), name);
  await press("j", "j");
  assert.ok(new URL(page.url()).searchParams.get("span"));
  const open = await page.locator(".rows .span").count();
  await page.locator(".tree").focus();
  await press("Home", "ArrowLeft");
  assert.ok((await page.locator(".rows .span").count()) < open);
  await press("ArrowRight", "End");
  assert.equal(await page.locator(".rows .span").count(), open);
  await press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await axe("the help");
  await press("Escape", "Escape");
  await page.locator("table.list tbody tr").nth(10).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), name, "back at the row");
});

await step("a trace is opened by mouse, and one step back leads to the list as it was", async () => {
  await page.goto(`${UI}/traces`);
  const last = page.locator("table.list tbody tr").last();
  await last.scrollIntoViewIfNeeded();
  const scrolled = () => page.evaluate(() => document.querySelector("#page").scrollTop);
  const before = await scrolled();
  await last.locator("a bdi").first().click();
  await page.locator(".rows .span").first().waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.className), "tree");
  await page.goBack();
  await last.waitFor();
  assert.ok(before > 0 && (await scrolled()) === before);
  await page.goto(`${UI}/traces?q=status%3Aerror`);
  await page.locator("table.list tbody tr a").first().click();
  await page.getByRole("link", { name: "Back" }).click();
  await page.waitForURL(/q=status%3Aerror$/);
});

await step("the tree, its times and the conversation are the trace's", async () => {
  await page.goto(`${UI}/traces/${weather.trace_id}`);
  await page.locator(".rows .span").first().waitFor();
  const { spans, conversation } = await ask("traces/show", { id: weather.trace_id });
  assert.deepEqual(await page.locator(".rows .span .name").allInnerTexts(), spans.map((span) => span.name));
  const levels = await page.locator(".rows .span").evaluateAll((rows) => rows.map((row) => Number(row.ariaLevel)));
  assert.deepEqual(levels, spans.map((span) => span.depth + 1));
  const [tree, bars] = [await page.locator(".rows .when").first().boundingBox(), await page.locator(".rows .bar").all()];
  for (const [place, bar] of bars.entries()) {
    const box = await bar.boundingBox();
    const expected = (spans[place].start_unix_nano - weather.start_unix_nano) / weather.duration_ns;
    assert.ok(Math.abs((box.x - tree.x) / tree.width - expected) < 0.02, `bar ${place}`);
  }
  await press("[");
  assert.ok((await page.locator(".rows .span").count()) < spans.length);
  await press("]");
  assert.equal(await page.locator(".rows .span").count(), spans.length);
  assert.equal(await page.locator(".turn").count(), conversation.length);
  const said = await page.locator(".turns").innerText();
  const asked = conversation.find((turn) => turn.role === "user");
  assert.ok(asked && said.includes(asked.text), "what the user asked is there");
  await axe("a trace");
});

await step("a link leads to one span, and its tabs show all that it holds", async () => {
  const { spans } = await ask("traces/show", { id: weather.trace_id });
  const tool = spans.find((span) => span.kind === "tool");
  const { line } = await ask("traces/show", { id: weather.trace_id, span: tool.span_id });
  await page.goto(`${UI}/traces/${weather.trace_id}?span=${tool.span_id}&tab=In%2FOut`);
  await page.locator(".rows .span.chosen").waitFor();
  assert.equal(await chosen(), tool.name);
  await page.locator("[role=tabpanel] .sent").nth(1).waitFor();
  assert.equal(await page.locator("[role=tabpanel] pre").nth(1).innerText(), line.output);
  await axe("in and out");
  await tab("Attributes");
  const [name] = Object.keys(line.attributes);
  await page.getByRole("rowheader", { name, exact: true }).first().waitFor();
  await axe("attributes");
  await tab("Raw");
  await page.locator("[role=tabpanel] .sent").waitFor();
  assert.match(await text("[role=tabpanel]"), new RegExp(tool.span_id));
});

await step("a trace and a span lead to where a sink shows them", async () => {
  const { spans } = await ask("traces/show", { id: weather.trace_id });
  const tool = spans.find((span) => span.kind === "tool");
  await page.goto(`${UI}/traces/${weather.trace_id}?span=${tool.span_id}&tab=Raw`);
  await page.locator("[role=tabpanel] .sent").waitFor();
  const address = (place) => page.locator(`${place} a.elsewhere`).getAttribute("href");
  assert.equal(await address(".summary"), `http://127.0.0.1:9/${weather.trace_id}?span=`);
  assert.equal(await address("[role=tabpanel]"), `http://127.0.0.1:9/${weather.trace_id}?span=${tool.span_id}`);
});

await step("large numbers are shown as they were sent", async () => {
  const trace = randomUUID().replaceAll("-", "");
  const [large, now] = ["9007199254740993", `${Date.now()}000000`];
  const attributes = [{ key: "order", value: { intValue: large } }, { key: "output.value", value: { stringValue: `{"text":"${"x".repeat(80)}","id":${large}}` } }];
  const span = { traceId: trace, spanId: "1".repeat(16), name: "order", kind: 1, startTimeUnixNano: now, endTimeUnixNano: now, attributes };
  await send("/v1/traces", { "Content-Type": "application/json" }, JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: [span] }] }] }));
  for (const [tab, times] of [["In/Out", 1], ["Attributes", 1], ["Raw", 2]]) {
    await page.goto(`${UI}/traces/${trace}?span=${span.spanId}&tab=${encodeURIComponent(tab)}`);
    await page.locator("[role=tabpanel] .sent").first().waitFor();
    const said = await page.locator("[role=tabpanel]").innerText();
    assert.ok(said.split(large).length > times, `${tab}: ${said}`);
  }
});

await step("the turns of a selected span are in sight, however many are before them", async () => {
  const trace = `trace_${randomUUID().replaceAll("-", "")}`;
  const at = (second) => new Date(Date.now() + second * 1000).toISOString();
  await sendItems(Array.from({ length: 150 }, (_, place) => ({
    object: "trace.span", id: `span_${place}`, trace_id: trace, parent_id: null, started_at: at(place), ended_at: at(place + 1), error: null,
    span_data: { type: "function", name: `step_${place}`, input: "{}", output: "a line\n".repeat(1 + (place % 40)) },
  })));
  const { spans } = await ask("traces/show", { id: trace });
  for (const place of [149, 60]) {
    await page.goto(`${UI}/traces/${trace.slice(6)}?span=${spans[place].span_id}`);
    const turn = page.locator(".turn.chosen");
    await turn.waitFor();
    await page.waitForTimeout(300);
    const above = (await turn.boundingBox()).y - (await page.getByRole("tabpanel").boundingBox()).y;
    assert.ok(above >= 0 && above < 400, `${above} below the top`);
  }
});

await step("errors are stepped through and names are found", async () => {
  await page.goto(`${UI}/traces/${broken.trace_id}`);
  await page.locator(".rows .span").first().waitFor();
  const { spans } = await ask("traces/show", { id: broken.trace_id });
  const failed = spans.filter((span) => span.error !== undefined).map((span) => span.name);
  await press("n");
  assert.equal(await chosen(), failed[0]);
  await press("n");
  assert.equal(await chosen(), failed[1]);
  await press("p");
  assert.equal(await chosen(), failed[0]);
  await press("/");
  await page.keyboard.type(spans[0].name.slice(0, 6));
  await press("Enter");
  assert.match(await text(".tools [role=status]"), /match/);
  await axe("errors");
});

await step("Delivery says of each sink what /status says of all", async () => {
  while ((await status()).sinks.some(({ name, pending }) => name !== "collector" && pending > 0)) await page.waitForTimeout(50);
  const sum = { lines: 0, collector: 0, warehouse: 0 };
  for (const { trace_id: id } of (await ask("traces", { limit: 1000 })).traces) {
    for (const sink of (await ask("traces/verify", { id })).sinks) {
      sum[sink.sink] += { lines: sink.delivered, collector: sink.pending, warehouse: sink.dead_lettered }[sink.sink];
    }
  }
  const { sinks } = await status();
  assert.deepEqual(sum, { lines: sinks[0].delivered, collector: sinks[1].pending, warehouse: sinks[2].dead_lettered });
  await page.goto(`${UI}/traces/${weather.trace_id}?tab=Delivery`);
  await page.locator("article.sink").nth(2).waitFor();
  const { spans } = weather;
  assert.deepEqual(await page.locator("article.sink > p").allInnerTexts(), [`${spans} delivered`, `${spans} pending`, `${spans} dead letters`]);
  await axe("delivery");
});

await step("each span has marks of its own", async () => {
  await page.goto(`${UI}/traces/${weather.trace_id}`);
  await page.locator(".rows .marks").first().waitFor();
  const said = await page.locator(".rows .marks .unseen").allInnerTexts();
  assert.deepEqual(said, Array(weather.spans).fill("lines: delivered; collector: pending; warehouse: dead letter"));
});

await step("a trace is copied as Markdown, JSON, OTLP/JSON and curl, and what is copied can be sent", async () => {
  const copied = async (name) => {
    await page.getByText("Copy as").click();
    await page.getByRole("button", { name, exact: true }).click();
    await page.getByText(`${name} copied`).waitFor();
    return page.evaluate(() => navigator.clipboard.readText());
  };
  assert.match(await copied("Markdown for an LLM"), new RegExp(`^# Trace ${weather.trace_id}`));
  assert.equal((await copied("JSON lines")).trim().split("\n").length, weather.spans);
  const otlp = await copied("OTLP/JSON");
  assert.match(await copied("curl"), new RegExp(`^curl .*'http://${PLAIN_HTTP}/v1/traces'`));
  await send("/v1/traces", { "Content-Type": "application/json" }, otlp);
});

// === Appearance ===

async function picture(name) {
  await page.screenshot({ path: `${IMAGES}/${name}.png` });
}

await step("pages in light, in dark and on a phone have no fault that axe knows", async () => {
  const looks = { light: {}, dark: { colorScheme: "dark" }, phone: { viewport: { width: 390, height: 844 } } };
  const { spans } = await ask("traces/show", { id: refunded.trace_id });
  const failed = spans.find((span) => span.error !== undefined).span_id;
  const trace = `traces/${refunded.trace_id}?span=${failed}`;
  const pages = { traces: "traces?from=1h", trace, delivery: `${trace}&tab=Delivery`, agents: "agents?from=1h", session: "sessions/chat-118", pipeline: "pipeline" };
  const ready = { traces: "tbody .marks", trace: ".rows .marks", delivery: "article.sink", session: ".turn", pipeline: "article.card" };
  const first = page;
  for (const [look, options] of Object.entries(looks)) {
    page = await reader(options);
    for (const [name, path] of Object.entries(pages)) {
      await page.goto(`${UI}/${path}`);
      await page.locator(ready[name] ?? "tbody tr").first().waitFor({ state: "attached" });
      await page.getByText("Reading").first().waitFor({ state: "detached" });
      await axe(`${name}, ${look}`);
      const width = await page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.querySelector("#page").scrollWidth));
      assert.ok(width <= page.viewportSize().width, `${name} is ${width} wide on ${look}`);
      await picture(`${name}-${look}`);
    }
    await page.context().close();
  }
  page = first;
});

/** Returns the marks of the list, row by row as each comes into view, and their sums. */
async function marks() {
  await page.goto(`${UI}/traces`);
  const rows = page.locator("table.list tbody tr");
  await rows.nth(10).waitFor();
  const [said, sums] = [{}, {}];
  for (const row of await rows.all()) {
    await row.scrollIntoViewIfNeeded();
    const words = await row.locator(".marks .unseen").first().textContent();
    said[await row.getAttribute("id")] = words;
    for (const [, sink, fates] of words.matchAll(/(\w+): ([^;]*)/g)) {
      sums[sink] ??= { delivered: 0, pending: 0, dead_lettered: 0 };
      for (const [, count, fate] of fates.matchAll(/([\d,]+) (delivered|pending|dead letters?)/g)) {
        sums[sink][fate.startsWith("dead") ? "dead_lettered" : fate] += Number(count.replaceAll(",", ""));
      }
    }
  }
  return { said, sums };
}

const figures = async () => Object.fromEntries((await status()).sinks.map(({ name, delivered, pending, dead_lettered }) => [name, { delivered, pending, dead_lettered }]));

await step("the marks of the list add up to what /status says, and a kill -9 changes none of them", async () => {
  const { said, sums } = await marks();
  assert.deepEqual(sums, await figures());
  assert.ok(sums.lines.delivered > 100 && sums.collector.pending > 100 && sums.warehouse.dead_lettered > 100);
  await axe("marks in the list");
  await restarted();
  const again = await marks();
  assert.deepEqual(again.said, said);
  assert.deepEqual(again.sums, await figures());
});

// === The other pages ===

await step("a trace that goes on is shown as it grows, and what is folded stays so", async () => {
  await page.goto(`${UI}/traces/${refunded.trace_id}`);
  await page.locator(".rows .span").first().waitFor();
  await page.locator(".tree").focus();
  await press("Home", "ArrowLeft");
  const rows = page.locator(".rows .span");
  const before = await rows.count();
  const times = { started_at: new Date(refunded.start_unix_nano / 1e6 - 1000).toISOString(), ended_at: new Date().toISOString() };
  await sendItems([{ object: "trace.span", id: "span_before_all", trace_id: `trace_${refunded.trace_id}`, parent_id: null, ...times, span_data: { type: "custom", name: "before all", data: {} }, error: null }]);
  await page.getByText("before all").waitFor();
  assert.equal(await rows.count(), before + 1);
  assert.deepEqual(await page.locator(".rows .span[aria-expanded=false] .name").allInnerTexts(), ["Triage"]);
});

await step("spans that are sent again are shown once, as they were sent last, and each is reached", async () => {
  const { trace_id: id, spans } = all.find((trace) => trace.name === "Customer support");
  const before = await ask("traces/show", { id });
  await sendItems(captured("python/p02_handoff_chain", 1));
  const isLast = (span, at) => span.start_unix_nano > before.spans[at].start_unix_nano;
  for (let now; !now?.spans.every(isLast); ) now = await ask("traces/show", { id });
  await page.goto(`${UI}/traces/${id}`);
  await page.locator(`.tree[aria-rowcount="${spans + 1}"]`).waitFor();
  await page.locator(".tree").focus();
  await press("Home", ...Array(spans - 1).fill("j"));
  assert.equal(await page.locator(".rows .span.chosen").getAttribute("aria-rowindex"), `${spans + 1}`);
});

await step("what clients send stays text", async () => {
  const evil = "<img src=x onerror='globalThis.pwned=1'><script>globalThis.pwned=1</script>\u202e evil";
  const trace = `trace_${"e".repeat(32)}`;
  const span = (id, data) => ({ object: "trace.span", id, trace_id: trace, parent_id: null, started_at: new Date().toISOString(), ended_at: new Date().toISOString(), span_data: data, error: { message: evil, data: {} } });
  await sendItems([
    { object: "trace", id: trace, workflow_name: evil, group_id: evil, metadata: { x: evil } },
    span("span_1", { type: "function", name: evil, input: evil, output: `{"a":${JSON.stringify(evil)}}` }),
    span("span_2", { type: "generation", input: [{ role: evil, content: evil }], output: [{ role: "assistant", content: evil }], model: evil, usage: null }),
    span("span_3", { type: "function", name: "picture", input: "x", output: "iVBORw0KGgo".repeat(600_000) }),
  ]);
  await page.goto(`${UI}/traces?q=picture`);
  await page.locator("table.list tbody tr").first().waitFor();
  const { traces: [{ trace_id: id, session }] } = await ask("traces", { filter: "picture" });
  const { spans } = await ask("traces/show", { id });
  for (const path of [`traces/${id}`, ...spans.flatMap((span) => ["Conversation", "In/Out", "Attributes", "Raw"].map((tab) => `traces/${id}?span=${span.span_id}&tab=${encodeURIComponent(tab)}`)), "sessions", `sessions/${encodeURIComponent(session)}`, "agents"]) {
    await page.goto(`${UI}/${path}`);
    await page.getByText("onerror").first().waitFor();
    assert.equal(await page.locator("main img, main script").count(), 0, path);
  }
  assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
});

await step("the sums are those of the port", async () => {
  await page.goto(`${UI}/agents`);
  for (const by of ["agent", "tool", "model"]) {
    const { rows } = await ask("stats", { by });
    const table = page.locator(`table[aria-labelledby=sums-${by}]`);
    await table.waitFor();
    if (by === "tool") await page.getByRole("button", { name: `Show all ${rows.length}` }).click();
    assert.deepEqual(await table.locator("tbody tr td:nth-child(2)").allInnerTexts(), rows.map((row) => row.count.toLocaleString("en")));
  }
  const heat = page.locator("table[aria-labelledby=handoffs]");
  await heat.waitFor();
  const { rows } = await ask("stats", { by: "handoff" });
  const cells = (await heat.locator("tbody td").allInnerTexts()).filter((text) => text !== "");
  assert.deepEqual(cells.toSorted(), rows.map((row) => row.count.toLocaleString("en")).toSorted());
  await axe("agents");
});

await step("a session is one conversation", async () => {
  await page.goto(`${UI}/sessions`);
  await page.locator("table.list tbody tr").first().waitFor();
  await axe("sessions");
  const { traces } = await ask("traces", { limit: 1000 });
  const session = traces.find((trace) => trace.session && trace.models.length > 0).session;
  await page.goto(`${UI}/sessions/${encodeURIComponent(session)}`);
  await page.locator("section.part").first().waitFor();
  assert.equal(await page.locator("section.part").count(), traces.filter((trace) => trace.session === session).length);
  await page.getByText("Reading...").first().waitFor({ state: "detached" });
  await axe("a session");
});

await step("the pipeline shows each sink, and dead letters are replayed", async () => {
  await page.goto(`${UI}/pipeline`);
  await page.getByRole("heading", { name: "warehouse" }).waitFor();
  assert.match(await page.locator("article.card").nth(1).innerText(), /retrying[^]*Connection refused/i);
  await axe("pipeline");
  await page.getByRole("button", { name: /^Replay / }).first().waitFor();
  await page.getByText("Newest item").first().click();
  await page.getByText("no such column").waitFor();
  await axe("the newest dead letter");
  warehouse.takes = true;
  const { dead_lettered: letters } = (await status()).sinks[2];
  await page.getByRole("button", { name: /^Replay / }).first().click();
  await page.getByText("No sink has rejected anything.").waitFor();
  const { delivered, dead_lettered: left } = (await status()).sinks[2];
  assert.ok(left === 0 && delivered >= letters, `${letters} ${left} ${delivered}`);
});

// === Size and keys ===

await step(`a trace of ${SPANS} spans opens, and draws what is in sight`, async () => {
  const trace = "0123456789abcdef0123456789abcdef";
  const id = (place) => (place + 1).toString(16).padStart(16, "0");
  const start = BigInt(Date.now()) * 1_000_000n;
  const span = (place) => ({
    traceId: trace, spanId: id(place), ...(place === 0 ? {} : { parentSpanId: id(Math.floor((place - 1) / 8)) }), name: `step ${place}`, kind: 1,
    startTimeUnixNano: `${start + BigInt(place) * 1000n}`, endTimeUnixNano: `${start + BigInt(place) * 1000n + 50_000_000n}`,
    attributes: [{ key: "gen_ai.operation.name", value: { stringValue: place % 5 === 0 ? "chat" : "execute_tool" } }],
  });
  for (let first = 0; first < SPANS; first += 4_000) {
    const spans = Array.from({ length: Math.min(4_000, SPANS - first) }, (_, place) => span(first + place));
    await send("/v1/traces", { "Content-Type": "application/json" }, JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] }));
  }
  // The page that was open asks from time to time, so it is left first.
  await page.goto("about:blank");
  const asked = [];
  const note = (request) => asked.push(request);
  page.on("request", note);
  const begun = performance.now();
  await page.goto(`${UI}/traces/${trace}`);
  await page.locator(".rows .span").first().waitFor();
  const shown = performance.now() - begun;
  const before = asked.map((request) => new URL(request.url()).pathname).filter((path) => !path.startsWith("/ui/"));
  assert.equal(before.filter((path) => path === "/api/v1/traces/show").length, 1, "it is read once");
  const parts = ["/api/v1/traces/show", "/status", "/api/v1/traces", "/api/v1/traces/verify"];
  assert.deepEqual(before.filter((path) => !parts.includes(path)), [], "little else is asked before it is drawn");
  const { responseBodySize: bytes } = await asked.find((request) => request.url().endsWith("/show")).sizes();
  assert.ok(bytes < SPANS * 200, `${bytes} bytes`);
  const { requestStart, responseStart, responseEnd } = asked.find((request) => request.url().endsWith("/show")).timing();
  const took = `the daemon ${Math.round(responseStart - requestStart)}, the way ${Math.round(responseEnd - responseStart)}`;
  console.log(`      it is on the screen after ${Math.round(shown)} ms (${took}, ${bytes} bytes)`);
  assert.equal(await page.locator(".tree").getAttribute("aria-rowcount"), `${SPANS + 1}`);
  assert.ok((await page.locator(".rows .span").count()) < 100);
  await page.locator(".tree").focus();
  const moved = performance.now();
  await press("End");
  await page.locator(".rows .span.chosen").waitFor();
  console.log(`      its last span is on the screen after ${Math.round(performance.now() - moved)} ms`);
  await page.locator(".rows .marks").first().waitFor();
  const until = asked.length;
  await press(...Array(10).fill("k"), "n", "[", "]");
  await page.getByLabel("Search in this trace").fill("step 32");
  await page.getByText(/^[\d,]+ matches$/).waitFor();
  assert.ok(!asked.slice(until).some((request) => request.url().endsWith("/show")), "nothing is read to move, to fold or to search");
  page.off("request", note);
  assert.ok((await page.locator("*").count()) < 2_000, "the page stays small");
});

await step("every new trace is counted, however many arrive at once, and one is found by its id", async () => {
  const MANY = 2_500;
  await page.goto(`${UI}/traces`);
  await page.locator("table.list tbody tr").nth(10).waitFor();
  const startTimeUnixNano = `${Date.now()}000000`;
  const spans = Array.from({ length: MANY }, () => ({ traceId: randomUUID().replaceAll("-", ""), spanId: "1".repeat(16), name: "one of many", kind: 1, startTimeUnixNano, endTimeUnixNano: startTimeUnixNano }));
  await send("/v1/traces", { "Content-Type": "application/json" }, JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] }));
  await page.getByRole("button", { name: "2,500 new" }).waitFor();
  await page.goto(`${UI}/traces?q=${spans[7].traceId}`);
  await page.getByText("1 of 1 trace").waitFor();
  assert.deepEqual(await names(), ["one of many"]);
});

await step("where tokens are set the console asks for one, once", async () => {
  await page.goto(`http://${ASKING}/ui/pipeline`);
  const dialog = page.getByRole("dialog", { name: "Sign in" });
  await dialog.waitFor();
  await axe("the question for a token");
  await page.getByLabel("Token").fill("wrong");
  await press("Enter");
  await dialog.waitFor();
  await page.getByLabel("Token").fill(TOKEN);
  await press("Enter");
  await page.getByRole("heading", { name: "none" }).waitFor();
  await page.getByRole("link", { name: "Traces" }).click();
  await page.getByRole("heading", { name: "No traces yet" }).waitFor();
  assert.equal(await dialog.count(), 0);
});

await step("where others reach the port and nobody is asked, the console is off and says why", async () => {
  const response = await page.goto(`http://${OPEN}/ui/`);
  assert.equal(response.status(), 403);
  assert.match(await page.locator("body").innerText(), /The console is off\s+other machines can reach this port .*set admin\.tokens/);
});

assert.deepEqual(strangers, [], "only this machine was asked");
assert.deepEqual(complaints, [], "nothing went wrong unseen");

await step("a page of another origin is refused", async () => {
  await page.goto("about:blank");
  const refused = await page.evaluate(async (url) => {
    const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };
    return fetch(url, init).then(() => "answered", () => "refused");
  }, `http://${PLAIN}/api/v1/traces`);
  assert.equal(refused, "refused");
});

await browser.close();
// The daemon keeps its connection to the backend here open for a minute.
process.exit();
