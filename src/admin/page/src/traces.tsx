// The list of traces, which updates itself.
import { useEffect, useRef, useState } from "preact/hooks";
import { daemon, type TraceSummary, type Verified } from "./api";
import { Legend, Marks, ofMany, sinks, useDelivery } from "./delivery";
import { ofTrace } from "./fates";
import { brief, clock, count, dollars, duration, plural } from "./format";
import { FilterBar, which } from "./filter";
import { FRESH_MAX, useTraces } from "./following";
import { seenFrom, TOKEN } from "./lists";
import { Nothing, State, useKeys, useTitle } from "./parts";
import { address, came, place, set } from "./route";
import { Strip } from "./strip";

const PAGE = 200;

export function TracesPage() {
  const { params } = place.value;
  const { list, answer, older, show } = useTraces(which(params), PAGE);
  const { shown, fresh } = list;
  const table = useRef<HTMLTableElement>(null);
  const inSight = useInSight(table, shown);
  const delivery = useDelivery(inSight, ofMany);
  useTitle("Traces");
  const move = (step: number) => {
    const links = [...(table.current?.querySelectorAll<HTMLAnchorElement>("tbody a") ?? [])];
    const at = links.indexOf(document.activeElement as HTMLAnchorElement);
    links[Math.max(0, Math.min(links.length - 1, at + step))]?.focus();
  };
  useKeys({ j: () => move(1), k: () => move(-1), n: show, Escape: () => (document.activeElement as HTMLElement | null)?.blur() });
  const over = fresh.size === FRESH_MAX ? "over " : "";
  const isAsked = Object.keys(which(params)).length > 0;
  return (
    <main>
      <h1 class="unseen">Traces</h1>
      <FilterBar error={answer.error} />
      <Strip traces={shown} />
      <div class="above-list">
        <p role="status" class="muted">
          {!answer.isDone && !answer.error && "Reading..."}
          {answer.isDone && `${count(shown.length)} of ${over}${plural(list.count + fresh.size, "trace")}`}
          {list.index?.rebuilding_percent !== undefined && `; ${list.index.rebuilding_percent}% of the journal is read again`}
          {!!list.index?.evicted && `; ${plural(list.index.evicted, "older trace")} gave way`}
        </p>
        {shown.length > 0 && sinks.value.length > 0 && <Legend />}
        <button type="button" class="pill" hidden={fresh.size === 0} onClick={show}>
          {over}{count(fresh.size)} new
        </button>
      </div>
      {shown.length > 0 && <Table traces={shown} reference={table} verified={delivery.of} />}
      {shown.length > 0 && shown.length < list.count && (
        <button type="button" class="more" onClick={older}>Show older traces</button>
      )}
      {answer.isDone && shown.length === 0 && (isAsked ? <NoneMeant /> : <NoneYet />)}
    </main>
  );
}

function NoneMeant() {
  return (
    <Nothing title="No trace matches">
      <p>
        Remove terms from the filter, or search <button type="button" onClick={() => set({ from: "", to: "" })}>all time</button>.
      </p>
    </Nothing>
  );
}

function NoneYet() {
  const needsToken = daemon.value?.needs_token;
  return (
    <Nothing title="No traces yet">
      <p>Point the Agents SDK or any OpenTelemetry exporter at this daemon; the first trace is here within a second.</p>
      <pre tabIndex={0}>
        OTEL_EXPORTER_OTLP_ENDPOINT={seenFrom(location.hostname, daemon.value?.receives_at ?? "")}
        {needsToken && `\nOTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20${TOKEN}`}
      </pre>
      <p>Or send an example: <code>spanferry send{needsToken && ` --token ${TOKEN}`}</code></p>
    </Nothing>
  );
}

/** Delay after the last row has come into view before the delivery states of visible rows are requested. */
const STILL_MS = 100;

/** Returns the traces whose rows are visible. */
function useInSight(table: { current: HTMLTableElement | null }, traces: TraceSummary[]): TraceSummary[] {
  const [ids, setIds] = useState<ReadonlySet<string>>(new Set());
  const key = traces.map((trace) => trace.trace_id).join();
  useEffect(() => {
    const seen = new Set<string>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const watch = new IntersectionObserver((rows) => {
      for (const { target, isIntersecting } of rows) seen[isIntersecting ? "add" : "delete"](target.id);
      clearTimeout(timer);
      timer = setTimeout(() => setIds(new Set(seen)), STILL_MS);
    });
    for (const row of table.current?.tBodies[0]?.rows ?? []) watch.observe(row);
    return () => {
      watch.disconnect();
      clearTimeout(timer);
    };
  }, [key]);
  return traces.filter((trace) => ids.has(trace.trace_id));
}

interface TableProps {
  traces: TraceSummary[];
  reference: { current: HTMLTableElement | null };
  verified: (trace: TraceSummary) => Verified | undefined;
}

function Table({ traces, reference, verified }: TableProps) {
  const hasCost = traces.some((trace) => trace.cost_usd !== undefined);
  const hasSinks = sinks.value.length > 0;
  return (
    <table class="list" ref={reference}>
      <caption class="unseen">Traces, the newest first</caption>
      <thead>
        <tr>
          <th scope="col">Trace</th>
          <th scope="col" class="wide">Start</th>
          <th scope="col"><span class="word">Status</span></th>
          <th scope="col" class="number">Took</th>
          <th scope="col" class="number wide">Spans</th>
          <th scope="col" class="number wide">Tokens in / out</th>
          {hasCost && <th scope="col" class="number">Cost</th>}
          <th scope="col" class="wider">Models</th>
          {hasSinks && <th scope="col" class="wide">Sinks</th>}
        </tr>
      </thead>
      <tbody>
        {traces.map((trace) => (
          <TraceRow key={trace.trace_id} trace={trace} hasCost={hasCost} hasSinks={hasSinks} verified={verified(trace)} />
        ))}
      </tbody>
    </table>
  );
}

function TraceRow({ trace, hasCost, hasSinks, verified }: { trace: TraceSummary; hasCost: boolean; hasSinks: boolean; verified: Verified | undefined }) {
  const link = useRef<HTMLAnchorElement>(null);
  const start = clock(trace.start_unix_nano / 1e6);
  useEffect(() => {
    if (came.page === "trace" && came.id === trace.trace_id) link.current?.focus();
  }, []);
  return (
    <tr id={trace.trace_id} onClick={(event) => (event.target as Element).closest("a") || getSelection()?.toString() || link.current?.click()}>
      <td>
        <a ref={link} href={address("trace", trace.trace_id)}>
          <bdi>{trace.name || trace.trace_id}</bdi>
        </a>
        <div class="muted under">
          <span class="narrow-only">{start} {verified && <Marks told={ofTrace(verified)} />}</span>
          <Names all={trace.agents.length > 0 ? trace.agents : trace.tools} />
        </div>
      </td>
      <td class="wide muted">{start}</td>
      <td><State status={trace.status} /></td>
      <td class="number">{duration(trace.duration_ns)}</td>
      <td class="number wide">{brief(trace.spans)}</td>
      <td class="number wide">{trace.total_tokens > 0 && `${brief(trace.input_tokens)} / ${brief(trace.output_tokens)}`}</td>
      {hasCost && <td class="number">{dollars(trace.cost_usd)}</td>}
      <td class="wider muted"><Names all={trace.models} /></td>
      {hasSinks && <td class="wide">{verified && <Marks told={ofTrace(verified)} />}</td>}
    </tr>
  );
}

/** The first names, and the number of others. Each name keeps its own text direction. */
export function Names({ all }: { all: string[] }) {
  return (
    <>
      {all.slice(0, 3).map((name, place) => (
        <span key={name}>{place > 0 && ", "}<bdi>{name}</bdi></span>
      ))}
      {all.length > 3 && ` +${all.length - 3}`}
    </>
  );
}
