// The delivery state of a trace or a span at each sink: marks for lists and trees, and everything in words.
import { computed } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import { command, daemon, type SinkLedger, status, type TraceSummary, type Verified } from "./api";
import { type Fate, foremost, isOpen, type Known, news, ofSpans, outcome, portions, shares, type Told, WORDS } from "./fates";
import { clock, count, plural } from "./format";
import { Facts, useAnswer } from "./parts";

const EVERY_MS = 2_000;
/** Ratio of pause to answer time: reading large traces and many dead letters must not keep the daemon busy. */
const REST = 20;

/** The sinks; pages reserve space for their marks. */
export const sinks = computed(() => daemon.value?.sinks ?? []);

export interface Delivery {
  /** Returns what is known of a trace. */
  of: (trace: TraceSummary) => Verified | undefined;
  /** Why no more is known. */
  error: Error | undefined;
}

/** Requests the delivery state of traces, and again when a count has changed while a sink does not have all of them. */
export function useDelivery(traces: TraceSummary[], ask: (ids: string[], signal: AbortSignal) => Promise<Verified[]>): Delivery {
  const all = useRef(new Map<string, Known>());
  const said = useRef("");
  const [, told] = useState(0);
  const known = (trace: TraceSummary) => all.current.get(trace.trace_id);
  const key = traces.map((trace) => `${trace.trace_id} ${trace.last_position}`).join();
  const answer = useAnswer(async (signal) => {
    const now = (await status(signal)).sinks;
    const isNews = said.current !== news(now);
    const open = traces.filter((trace) => isOpen(trace, known(trace)) && (isNews || known(trace)?.last_position !== trace.last_position));
    for (const part of portions(open)) {
      const read = await ask(part.map((trace) => trace.trace_id), signal);
      for (const trace of part) {
        const verified = read.find((read) => read.trace_id === trace.trace_id);
        if (verified) all.current.set(trace.trace_id, { verified, last_position: trace.last_position });
      }
      told((times) => times + 1);
    }
    said.current = news(now);
  }, key, EVERY_MS, REST);
  return { of: (trace) => known(trace)?.verified, error: answer.error };
}

/** Requests the state of several traces, without their spans. */
export const ofMany = (ids: string[], signal: AbortSignal) => command<Verified[]>("traces/delivery", { ids }, signal);

/** Requests the state of one trace, with its spans. */
export const ofOne = async ([id]: string[], signal: AbortSignal) => [await command<Verified>("traces/verify", { id }, signal)];

/** A fate as a mark. Its shape shows it too, not only its color. */
export function Mark({ fate }: { fate: Fate | undefined }) {
  return <span class={`mark ${fate ?? "unknown"}`} aria-hidden="true" />;
}

/** A mark for each sink. */
export function Marks({ told }: { told: Told[] }) {
  const words = told.map(({ sink, words }) => `${sink}: ${words}`);
  return (
    <span class="marks" title={words.join("\n")}>
      {told.map(({ sink, fate }) => <Mark key={sink} fate={fate} />)}
      <span class="unseen">{words.join("; ")}</span>
    </span>
  );
}

/** The same with the sinks' names. */
export function NamedMarks({ told }: { told: Told[] }) {
  return (
    <span class="marks named">
      {told.map(({ sink, fate, words }) => (
        <span key={sink} title={words}>
          <Mark fate={fate} /> <bdi>{sink}</bdi><span class="unseen">: {words}</span>
        </span>
      ))}
    </span>
  );
}

/** The meaning of the marks, and the names of their sinks. */
export function Legend() {
  return (
    <p class="legend muted">
      <span>Sinks: {sinks.value.map(({ name }, place) => <span key={name}>{place > 0 && ", "}<bdi>{name}</bdi></span>)}</span>
      {LEGEND.map((fate) => <span key={fate}><Mark fate={fate} /> {WORDS[fate]}</span>)}
    </p>
  );
}

const LEGEND: Fate[] = ["delivered", "pending", "dead_lettered", "filtered"];

/** The tab with a trace's complete delivery state. */
export function DeliveryTab({ verified, span }: { verified: Verified | undefined; span: string | undefined }) {
  if (!verified) return <p class="muted" role="status">Checking the sinks...</p>;
  const told = span === undefined ? [] : ofSpans(verified)(span);
  return (
    <>
      <h3>Per sink</h3>
      <p class="muted">Counted in items: spans, and the Agents SDK's trace objects.</p>
      {verified.sinks.length === 0 && <p class="muted">No sinks are configured.</p>}
      {verified.sinks.map((sink, place) => <Sink key={sink.sink} sink={sink} span={told[place]?.words ?? ""} />)}
      <h3>Received</h3>
      <Facts
        facts={[
          ["Spans", count(verified.received)],
          ["Distinct", count(verified.distinct)],
          ["Duplicates", count(verified.duplicates)],
          ["Missing parents", count(verified.orphans)],
          ["Without an end", count(verified.unended)],
          ["Trace objects", count(verified.trace_objects)],
          ["First", clock(Date.parse(verified.first_received))],
          ["Last", clock(Date.parse(verified.last_received))],
        ]}
      />
      {verified.missing_parents.length > 0 && <p class="muted">Parents that were not received: <code>{verified.missing_parents.join(" ")}</code></p>}
      {verified.in_circles > 0 && <p class="muted">In a cycle of parents, or below one: {plural(verified.in_circles, "span")}.</p>}
    </>
  );
}

function Sink({ sink, span }: { sink: SinkLedger; span: string }) {
  const parts = shares(sink);
  const all = parts.reduce((sum, [, items]) => sum + items, 0);
  const fate = foremost(sink) ?? "filtered";
  return (
    <article class="sink">
      <header>
        <h4><bdi>{sink.sink}</bdi></h4>
        <span class={`state ${KINDS[fate] ?? ""}`}>{WORDS[fate]}</span>
        {span !== "" && <span class="muted">this span: {span}</span>}
      </header>
      <div class="shares" aria-hidden="true">
        {parts.map(([fate, items]) => <span key={fate} class={`share ${fate}`} style={{ width: `${(items / all) * 100}%` }} />)}
      </div>
      <p>{outcome(sink)}</p>
    </article>
  );
}

const KINDS: Partial<Record<Fate, string>> = { delivered: "good", pending: "busy", dead_lettered: "bad", dropped: "bad" };
