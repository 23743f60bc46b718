// A trace: its summary, its tree with times, and the contents of the trace or of a span.
import type { ComponentChildren } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";
import { command, daemon, readTrace, type Trace, type TraceSummary, type Traces, type Verified } from "./api";
import { NamedMarks, ofOne, useDelivery } from "./delivery";
import { ofSpans, ofTrace } from "./fates";
import { clock, count, dollars, duration, plural } from "./format";
import { curl, seenFrom, TOKEN } from "./lists";
import { Panel } from "./panel";
import { type Answer, copy, Facts, Links, Nothing, Problem, State, useAnswer, useKeys, useTitle } from "./parts";
import { address, leave, place, set } from "./route";
import { busy, collapsible, found, next, readEvery, type Row, rows, uncover, visible } from "./tree";
import { Tree } from "./waterfall";

/** Shows a trace, and updates it when more of it arrives. */
export function TracePage() {
  const { id } = place.value;
  const [grown, setGrown] = useState("");
  const answer = useAnswer((signal) => readTrace(id, signal), `${id} ${grown.startsWith(id) ? grown : ""}`);
  const last = useRef<{ id: string; trace: Trace } | undefined>(undefined);
  if (answer.value) last.current = { id, trace: answer.value };
  const trace = last.current?.id === id ? last.current.trace : undefined;
  const { error } = useGrowth(id, trace?.summary, (position) => setGrown(`${id} ${position}`));
  useTitle(trace?.summary.name ?? "Trace");
  useKeys({ Escape: () => leave(address("traces")) });
  if (!trace && answer.error) {
    return (
      <main>
        <Nothing title="This trace cannot be shown">
          <Problem error={answer.error} />
          <p><a href={address("traces")}>All traces</a></p>
        </Nothing>
      </main>
    );
  }
  return <main class="trace">{trace ? <Whole key={id} trace={trace} error={answer.error ?? error} /> : <p class="muted" role="status">Reading the trace...</p>}</main>;
}

/** Reports when more of a trace has arrived. */
function useGrowth(id: string, known: TraceSummary | undefined, tell: (position: number) => void): Answer<void> {
  const look = async (signal: AbortSignal) => {
    if (!known) return;
    const { traces } = await command<Traces>("traces", { filter: [known.trace_id], since: known.last_position + 1 }, signal);
    if (traces[0]) tell(traces[0].last_position);
  };
  return useAnswer(look, `growth ${id}`, readEvery(known?.spans ?? 0));
}

function Whole({ trace, error }: { trace: Trace; error: Error | undefined }) {
  const { span: chosenId = "" } = place.value.params;
  const all = useMemo(() => rows(trace.spans ?? []), [trace]);
  const byId = useMemo(() => new Map(all.map(({ span }, at) => [span.span_id, at])), [all]);
  const chosen = byId.get(chosenId) ?? -1;
  const [collapsed, setCollapsed] = useState<ReadonlySet<string>>(new Set());
  const [text, setText] = useState("");
  const shown = useMemo(() => visible(all, collapsed), [all, collapsed]);
  const matches = useMemo(() => found(all, text), [all, text]);
  const delivery = useDelivery([trace.summary], ofOne);
  const verified = delivery.of(trace.summary);
  const toldOf = useMemo(() => verified && ofSpans(verified), [verified]);
  const failed = useMemo(() => all.flatMap(({ span }, at) => (span.error === undefined ? [] : [at])), [all]);
  const choose = (at: number | undefined) => {
    const row = all[at ?? -1];
    if (!row || at === undefined) return;
    setCollapsed((now) => uncover(all, now, at));
    set({ span: row.span.span_id }, true);
  };
  const step = (by: number) => choose(shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(chosen) + by))]);
  const fold = (id: string, isFolded: boolean) => {
    setCollapsed((now) => new Set(isFolded ? [...now, id] : [...now].filter((other) => other !== id)));
  };
  useKeys({
    n: () => choose(next(failed, chosen, 1)),
    p: () => choose(next(failed, chosen, -1)),
    j: () => step(1),
    k: () => step(-1),
    "[": () => setCollapsed(collapsible(all)),
    "]": () => setCollapsed(new Set()),
  });
  return (
    <>
      <Summary trace={trace} rows={all} verified={verified} error={error ?? delivery.error} />
      <div class="tools">
        <input
          type="search"
          aria-label="Search in this trace"
          placeholder="Search in this trace"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter") choose(next(matches, chosen, event.shiftKey ? -1 : 1));
            if (event.key === "Escape") document.querySelector<HTMLElement>(".tree")?.focus();
          }}
        />
        <span role="status" class="muted">{text !== "" && plural(matches.length, "match", "matches")}</span>
        <span class="gap" />
        {failed.length > 0 && (
          <span class="errors">
            <button type="button" aria-label="Previous error" onClick={() => choose(next(failed, chosen, -1))}>&lsaquo;</button>
            {plural(failed.length, "error")}
            <button type="button" aria-label="Next error" onClick={() => choose(next(failed, chosen, 1))}>&rsaquo;</button>
          </span>
        )}
        <button type="button" class="wide" onClick={() => setCollapsed(collapsed.size > 0 ? new Set() : collapsible(all))}>
          {collapsed.size > 0 ? "Expand all" : "Collapse all"}
        </button>
        <Copies trace={trace.summary} />
      </div>
      <div class="halves">
        <Tree rows={all} shown={shown} chosen={chosen} collapsed={collapsed} matches={matches} summary={trace.summary} {...{ toldOf, choose, step, fold }} />
        <Panel trace={trace} span={all[chosen]?.span} verified={verified} chooseSpan={(id) => choose(byId.get(id))} />
      </div>
    </>
  );
}

interface SummaryProps {
  trace: Trace;
  rows: Row[];
  verified: Verified | undefined;
  /** Why no more is known. */
  error: Error | undefined;
}

function Summary({ trace, rows, verified, error }: SummaryProps) {
  const { summary, spans = [] } = trace;
  const times = useMemo(() => ({ models: busy(spans, MODELS), tools: busy(spans, ["tool"]) }), [trace]);
  const depth = useMemo(() => rows.reduce((most, row) => Math.max(most, row.span.depth + 1), 0), [rows]);
  const facts: [string, ComponentChildren][] = [
    ["Started", clock(summary.start_unix_nano / 1e6)],
    ["Took", duration(summary.duration_ns)],
    ["Models / tools", `${duration(times.models)} / ${duration(times.tools)}`],
    ["Spans", `${count(summary.spans)}${summary.errors > 0 ? `, ${count(summary.errors)} failed` : ""}`],
    ["Depth", count(depth)],
  ];
  if (summary.total_tokens > 0) facts.push(["Tokens", `${count(summary.input_tokens)} in, ${count(summary.output_tokens)} out`]);
  if (summary.cost_usd !== undefined) facts.push(["Cost", dollars(summary.cost_usd)]);
  if (summary.session) facts.push(["Session", <a href={address("session", summary.session)}><bdi>{summary.session}</bdi></a>]);
  if (summary.user) facts.push(["User", <bdi>{summary.user}</bdi>]);
  if (verified?.sinks.length) facts.push(["Sinks", <NamedMarks told={ofTrace(verified)} />]);
  if (trace.links) facts.push(["Open in", <Links links={trace.links} />]);
  facts.push(["Id", <code>{summary.trace_id}</code>]);
  return (
    <header class="summary">
      <a class="back" rel="up" href={address("traces")} aria-label="Back">&larr;</a>
      <h1><bdi>{summary.name || summary.trace_id}</bdi></h1>
      <State status={summary.status} />
      <Facts facts={facts} />
      <Problem error={error} />
      {trace.unreadable > 0 && (
        <p class="problem" role="alert">{plural(trace.unreadable, "item")} of this trace cannot be read any more: the journal has removed them, or they are damaged.</p>
      )}
    </header>
  );
}

/** Kinds of work done by a model. */
const MODELS = ["generation", "embedding", "reranker", "speech", "transcription"];

const FORMS: [string, string, (text: string) => string][] = [
  ["Markdown for an LLM", "markdown", (text) => text],
  ["JSON lines", "json", (text) => text],
  ["OTLP/JSON", "otlp-json", (text) => text],
  ["curl", "otlp-json", (text) => curl(text, seenFrom(location.hostname, daemon.value?.receives_at ?? ""), !!daemon.value?.needs_token)],
];

/** Copies the trace in one of several forms. */
function Copies({ trace }: { trace: TraceSummary }) {
  const menu = useRef<HTMLDetailsElement>(null);
  const [said, setSaid] = useState("");
  const take = async (name: string, form: string, written: (text: string) => string) => {
    if (menu.current) menu.current.open = false;
    setSaid("...");
    try {
      const read = await command<Trace>("traces/show", { id: trace.trace_id, as: form });
      await copy(written(read.document ?? ""));
      setSaid(`${name} copied${name === "curl" && daemon.value?.needs_token ? `: put a token of the receivers in place of ${TOKEN}` : ""}`);
    } catch (error) {
      setSaid((error as Error).message);
    }
    setTimeout(() => setSaid(""), 3_000);
  };
  return (
    <>
      <span role="status" class="muted">{said}</span>
      <details class="menu" ref={menu} onKeyDown={(event) => {
        if (event.key !== "Escape" || !menu.current?.open) return;
        event.stopPropagation();
        menu.current.open = false;
        menu.current.querySelector("summary")?.focus();
      }}>
        <summary>Copy as</summary>
        <div>
          {FORMS.map(([name, form, written]) => (
            <button key={name} type="button" onClick={() => void take(name, form, written)}>{name}</button>
          ))}
        </div>
      </details>
    </>
  );
}
