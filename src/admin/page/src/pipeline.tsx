// The state of the pipeline: the receivers, the journal, each sink, quarantine and dead letters.
import { useRef, useState } from "preact/hooks";
import { command, type Entry, type Group, type Listed, type Progress, type SinkView, status, type Status } from "./api";
import { age, brief, bytes, clock, count, plural } from "./format";
import { Facts, Nothing, Problem, Sent, useAnswer, useTitle } from "./parts";
import { address } from "./route";

const EVERY_MS = 2_000;
/** Ratio of pause to answer time: all dead letters are read for their list. */
const REST = 20;
/** Maximum number of an entry's traces that are named. */
const TRACES_MAX = 5;

/** Selects the quarantine instead of the dead letters. */
interface Which {
  quarantine?: boolean;
}

export function PipelinePage() {
  const before = useRef<{ at: number; status: Status } | undefined>(undefined);
  const [rates, setRates] = useState(new Map<string, number>());
  const answer = useAnswer(async (signal) => {
    const now = { at: performance.now(), status: await status(signal) };
    const last = before.current;
    if (last) setRates(perSecond(last.status, now.status, (now.at - last.at) / 1e3));
    before.current = now;
    return now.status;
  }, "status", EVERY_MS);
  useTitle("Pipeline");
  const read = answer.value;
  return (
    <main class="pipeline">
      <h1 class="unseen">Pipeline</h1>
      <Problem error={answer.error} />
      {read && (
        <>
          {read.refused_reload && (
            <pre class="problem" role="alert">
              The configuration was not reloaded at {clock(Date.parse(read.refused_reload.at))}; the previous one stays in force.{"\n"}{read.refused_reload.problem}
            </pre>
          )}
          <Receivers receivers={read.receivers} rate={rates.get("") ?? 0} />
          <JournalPart status={read} />
          <section>
            <h2>Sinks</h2>
            {read.sinks.length === 0 && <Nothing title="No sinks are configured"><p>Spans are kept in the journal only.</p></Nothing>}
            <div class="cards">{read.sinks.map((sink) => <SinkCard key={sink.name} sink={sink} rate={rates.get(sink.name) ?? 0} />)}</div>
          </section>
          <Aside title="Dead letters" which={{}} none="No sink has rejected anything." />
          <Aside title="Quarantine" which={{ quarantine: true }} none="Nothing is quarantined." />
          <p class="muted">Spanferry {read.version}, up for {age(read.uptime_seconds)}</p>
        </>
      )}
    </main>
  );
}

function perSecond(last: Status, now: Status, seconds: number): Map<string, number> {
  const rate = (more: number, less: number | undefined) => (less === undefined ? 0 : Math.max(0, (more - less) / seconds));
  const of = (sink: SinkView): [string, number] => [sink.name, rate(sink.delivered, last.sinks.find((known) => known.name === sink.name)?.delivered)];
  return new Map([["", rate(now.journal.items, last.journal.items)], ...now.sinks.map(of)]);
}

const rateText = (rate: number) => `${rate < 10 ? rate.toFixed(1) : brief(rate)} items / s`;

function Receivers({ receivers, rate }: { receivers: Record<string, Record<string, number>>; rate: number }) {
  const names = Object.keys(receivers);
  const figures = [...new Set(names.flatMap((name) => Object.keys(receivers[name] ?? {})))];
  return (
    <section>
      <h2>Receivers <span class="muted">{rateText(rate)}, counted since the start</span></h2>
      {names.length === 0 ? <p class="muted">Nothing was received since the start.</p> : (
        <div class="scrolled" tabIndex={0} role="region" aria-label="Receivers"><table class="list still">
          <thead>
            <tr>
              <th scope="col">Receiver</th>
              {figures.map((figure) => <th key={figure} scope="col" class="number">{title(figure)}</th>)}
            </tr>
          </thead>
          <tbody>
            {names.map((name) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                {figures.map((figure) => <td key={figure} class="number">{count(receivers[name]?.[figure] ?? 0)}</td>)}
              </tr>
            ))}
          </tbody>
        </table></div>
      )}
    </section>
  );
}

const words = (name: string) => name.replaceAll("_", " ");
const title = (name: string) => name.slice(0, 1).toUpperCase() + words(name.slice(1));

function JournalPart({ status: { journal, accepting } }: { status: Status }) {
  const share = journal.bytes_max > 0 ? journal.bytes / journal.bytes_max : 0;
  return (
    <section>
      <h2>Journal <span class={`state ${journal.health === "good" ? "good" : "bad"}`}>{words(journal.health)}</span></h2>
      <Facts
        facts={[
          ["Accepted", plural(journal.items, "item")],
          ["Size", `${bytes(journal.bytes)} of ${bytes(journal.bytes_max)}`],
          ["Kept", journal.mode === "disk" ? "on disk" : "in memory: a crash loses it"],
          ["Requests", accepting ? "accepted" : "refused: the daemon is stopping"],
        ]}
      />
      <div class="shares" aria-hidden="true"><span class={`share ${share > 0.8 ? "dead_lettered" : "delivered"}`} style={{ width: `${Math.min(100, share * 100)}%` }} /></div>
      {journal.problem && <pre class="problem" role="alert">{journal.problem}</pre>}
    </section>
  );
}

function SinkCard({ sink, rate }: { sink: SinkView; rate: number }) {
  const isWell = sink.state === "running" || sink.state === "drained";
  return (
    <article class="card">
      <header>
        <h3><bdi>{sink.name}</bdi></h3>
        {sink.name !== sink.type && <span class="muted">{sink.type}</span>}
        <span class={`state ${isWell ? "good" : "bad"}`}>{sink.state}</span>
      </header>
      <Facts
        facts={[
          ["Delivered", `${count(sink.delivered)} (${rateText(rate)})`],
          ["Pending", `${count(sink.pending)}${sink.pending > 0 ? `, ${bytes(sink.pending_bytes)}` : ""}`],
          ["Oldest pending", age(sink.oldest_age_seconds)],
          ["Retries", count(sink.retries)],
          ["Dead letters", count(sink.dead_lettered)],
          ["Filtered", count(sink.filtered)],
          ["Dropped", count(sink.dropped)],
          ["Breaker", sink.breaker_open ? "open: one attempt at a time" : "closed"],
          ["In flight", `${count(sink.in_flight)} of ${count(sink.concurrency)} deliveries`],
        ]}
      />
      {sink.problem && <pre class="problem" tabIndex={0} aria-label={`Problem of ${sink.name}`}>{sink.problem}</pre>}
    </article>
  );
}

/** Quarantined items or dead letters by reason, each with a button that replays them. */
function Aside({ title, which, none }: { title: string; which: Which; none: string }) {
  const answer = useAnswer((signal) => command<Listed>("dead-letters/list", { which, limit: 0 }, signal), title, 5_000, REST);
  const listed = answer.value;
  return (
    <section>
      <h2>{title} {listed && <span class="muted">{count(listed.items)}</span>}</h2>
      <Problem error={answer.error} />
      {listed?.groups.length === 0 && <p class="muted">{none}</p>}
      {!!listed?.groups.length && (
        <table class="list still">
          <caption class="unseen">{title} by reason</caption>
          <thead>
            <tr>
              <th scope="col">Reason</th>
              <th scope="col" class="number">Items</th>
              <th scope="col" class="wide">First</th>
              <th scope="col" class="wide">Last</th>
              <th scope="col"><span class="unseen">Replay</span></th>
            </tr>
          </thead>
          <tbody>
            {listed.groups.map((group) => <AsideRow key={`${group.sink} ${group.reason}`} group={group} which={which} again={answer.again} />)}
          </tbody>
        </table>
      )}
    </section>
  );
}

function AsideRow({ group, which, again }: { group: Group; which: Which; again: () => void }) {
  const [said, setSaid] = useState("");
  const [open, setOpen] = useState(false);
  const replay = async () => {
    setSaid("Replaying...");
    const asked = { which: { ...which, reason: `=${group.reason}` }, ...(group.sink === "" ? {} : { from_sink: group.sink }) };
    try {
      const { progress } = await command<{ progress: Progress }>("dead-letters/replay", asked);
      setSaid(outcome(progress));
    } catch (error) {
      setSaid((error as Error).message);
    }
    again();
  };
  return (
    <tr>
      <td>
        {group.sink !== "" && <strong><bdi>{group.sink}</bdi> </strong>}
        <bdi>{group.reason}</bdi>
        <div class="muted under" role="status">{said}</div>
        <details class="under" onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary>Newest item</summary>
          {open && <Newest group={group} which={which} />}
        </details>
      </td>
      <td class="number">{count(group.items)}</td>
      <td class="wide muted">{clock(Date.parse(group.first))}</td>
      <td class="wide muted">{clock(Date.parse(group.last))}</td>
      <td class="number"><button type="button" onClick={() => void replay()} aria-label={`Replay ${plural(group.items, "item")}: ${group.reason}`}>Replay</button></td>
    </tr>
  );
}

/** The newest entry of a group: its traces, and what the backend answered or, in the quarantine, the item itself. */
function Newest({ group: { sink, reason }, which }: { group: Group; which: Which }) {
  const { quarantine = false } = which;
  const ask = async (signal: AbortSignal) => {
    const asked = { which: { ...which, reason: `=${reason}` }, limit: 1, ...(sink === "" ? {} : { sink }) };
    const { newest } = await command<Listed>("dead-letters/list", asked, signal);
    return newest[0] && command<Entry>("dead-letters/show", { id: newest[0].id, quarantine, answer: true, payload: quarantine }, signal);
  };
  const { value, error } = useAnswer(ask, "");
  return (
    <>
      <Problem error={error} />
      {value?.traces.slice(0, TRACES_MAX).map((id) => <p key={id}>Trace <a href={address("trace", id)}>{id}</a></p>)}
      {value && <Sent text={value.payload ?? value.answer ?? ""} />}
    </>
  );
}

function outcome({ items, delivered, rejected, not_understood, unreadable }: Progress): string {
  const parts: [number, string][] = [[delivered, "delivered"], [rejected, "rejected"], [not_understood, "not understood"], [unreadable, "unreadable"]];
  return `${plural(items, "item")}: ${parts.filter(([many]) => many > 0).map(([many, what]) => `${count(many)} ${what}`).join(", ") || "nothing to deliver"}`;
}
