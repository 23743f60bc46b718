// Sessions, and the turns of a session as one conversation.
import { useMemo, useState } from "preact/hooks";
import { command, type Trace, type TraceSummary, type Turn } from "./api";
import { Conversation } from "./conversation";
import { FilterBar, which } from "./filter";
import { useTraces } from "./following";
import { brief, clock, count, dollars, duration, plural } from "./format";
import { failures, sessions, unsaid, wordFor } from "./lists";
import { Nothing, Problem, State, useAnswer, useKeys, useTitle } from "./parts";
import { address, leave, place } from "./route";
import { Names } from "./traces";

const TRACES_MAX = 1_000;
/** Number of a session's traces whose turns are read initially, and added by each "Show earlier traces". */
const READ_AT_ONCE = 100;
/** Time until a failed reading is tried again. */
const EVERY_MS = 5_000;

export function SessionsPage() {
  const { list, answer } = useTraces(which(place.value.params), TRACES_MAX, true);
  useTitle("Sessions");
  const all = sessions(list.shown);
  return (
    <main>
      <h1 class="unseen">Sessions</h1>
      <FilterBar error={answer.error} />
      <p role="status" class="muted">
        {!answer.isDone && !answer.error && "Reading..."}
        {answer.isDone && `${plural(all.length, "session")} in the newest ${plural(list.shown.length, "trace")}`}
      </p>
      {all.length > 0 && (
        <table class="list">
          <caption class="unseen">Sessions, the newest first</caption>
          <thead>
            <tr>
              <th scope="col">Session</th>
              <th scope="col" class="wide">Last</th>
              <th scope="col" class="number">Traces</th>
              <th scope="col" class="number">Failed</th>
              <th scope="col" class="number wide">Tokens</th>
              <th scope="col" class="number">Cost</th>
            </tr>
          </thead>
          <tbody>
            {all.map((session) => (
              <tr key={session.id}>
                <td>
                  <a href={address("session", session.id)}><bdi>{session.id}</bdi></a>
                  <div class="muted under"><Names all={[...(session.user ? [session.user] : []), ...session.agents]} /></div>
                </td>
                <td class="wide muted">{clock(session.last)}</td>
                <td class="number">{count(session.turns)}</td>
                <td class={`number ${session.errors > 0 ? "bad" : ""}`}>{count(session.errors)}</td>
                <td class="number wide">{brief(session.tokens)}</td>
                <td class="number">{dollars(session.cost)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {answer.isDone && all.length === 0 && (
        <Nothing title="No sessions">
          <p>A trace belongs to a session when its sender says so: <code>group_id</code> in the Agents SDK, <code>gen_ai.conversation.id</code> or <code>session.id</code> in OpenTelemetry.</p>
        </Nothing>
      )}
    </main>
  );
}

export function SessionPage() {
  const { id } = place.value;
  const { list, answer } = useTraces({ filter: [wordFor("session", id)] }, TRACES_MAX, true);
  const [most, setMost] = useState(known.session === id ? known.most : READ_AT_ONCE);
  useTitle(`Session ${id}`);
  useKeys({ Escape: () => leave(address("sessions")) });
  const own = list.shown.filter((trace) => trace.session === id).reverse();
  const [session] = sessions(own);
  const shown = own.slice(-most);
  const { parts, error } = useTurns(id, shown);
  return (
    <main class="session">
      <header class="summary">
        <a class="back" rel="up" href={address("sessions")} aria-label="Back">&larr;</a>
        <h1><bdi>{id}</bdi></h1>
        {session && (
          <p class="muted">
            {plural(session.turns, "trace")}, {clock(session.first)} to {clock(session.last)}, {brief(session.tokens)} tokens{session.cost !== undefined && `, ${dollars(session.cost)}`}
          </p>
        )}
      </header>
      <Problem error={answer.error ?? error} />
      {answer.isDone && own.length === 0 && <Nothing title="No trace of this session is in the journal" />}
      {own.length > most && <button type="button" class="more" onClick={() => setMost((known.most = most + READ_AT_ONCE))}>Show earlier traces ({count(own.length - most)})</button>}
      {shown.map((trace, at) => (
        <section key={trace.trace_id} class="part">
          <h2>
            <a href={address("trace", trace.trace_id)}><bdi>{trace.name || trace.trace_id}</bdi></a> <State status={trace.status} />
            <span class="muted"> {clock(trace.start_unix_nano / 1e6)}, {duration(trace.duration_ns)}{trace.cost_usd !== undefined && `, ${dollars(trace.cost_usd)}`}</span>
          </h2>
          {parts[at] ? <Conversation {...parts[at]} /> : <p class="muted">Reading...</p>}
        </section>
      ))}
    </main>
  );
}

/** The turns in a trace of a session, and the trace's errors. */
interface Part {
  turns: Turn[];
  failed: Map<string, string>;
}

/** What was read of the session shown last, and how many of its traces were shown. The page shows it again as it was left. */
let known = { session: "", parts: new Map<string, Part>(), most: READ_AT_ONCE };

/** Returns the turns of each trace of a session that are not in previous ones. Traces are read sequentially, and again only when they have grown. */
function useTurns(session: string, traces: TraceSummary[]): { parts: (Part | undefined)[]; error: Error | undefined } {
  if (known.session !== session) known = { session, parts: new Map(), most: READ_AT_ONCE };
  const all = known.parts;
  const [read, setRead] = useState(0);
  const keys = traces.map((trace) => `${trace.trace_id} ${trace.last_position}`);
  const ask = async (signal: AbortSignal) => {
    for (const [at, { trace_id: id }] of traces.entries()) {
      const key = keys[at] ?? "";
      if (all.has(key)) continue;
      const trace = await command<Trace>("traces/show", { id }, signal);
      setRead(all.set(key, { turns: trace.conversation ?? [], failed: failures(trace) }).size);
    }
  };
  const { error } = useAnswer(ask, keys.join(), EVERY_MS);
  const parts = useMemo(() => {
    const seen = new Set<string>();
    return keys.map((key) => {
      const part = all.get(key);
      return part && { ...part, turns: unsaid(seen, part.turns) };
    });
  }, [keys.join(), read]);
  return { parts, error };
}
