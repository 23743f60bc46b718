// Sums by agent, tool and model over the selected traces.
import { useState } from "preact/hooks";
import { command, type Stats, type StatsRow } from "./api";
import { FilterBar, which } from "./filter";
import { brief, count, dollars, duration, plural } from "./format";
import { Nothing, Problem, useAnswer, useTitle } from "./parts";
import { matrix, wordFor } from "./lists";
import { address, place } from "./route";

const KINDS = [
  ["agent", "Agents"],
  ["tool", "Tools"],
  ["model", "Models"],
] as const;

/** Number of rows shown initially. */
const ROWS = 50;
/** Maximum number of agents on each side of the table of handoffs. */
const HANDOFFS_MAX = 20;

export function AgentsPage() {
  const asked = which(place.value.params);
  const key = JSON.stringify(asked);
  const first = useStats("agent", asked, key);
  const answers = [first, useStats("tool", asked, key), useStats("model", asked, key)];
  const handoffs = useStats("handoff", asked, key);
  useTitle("Agents");
  // All tables appear at once, so that none moves another.
  const isRead = answers.every((answer) => answer.isDone);
  const isEmpty = answers.every((answer) => answer.value?.rows.length === 0);
  return (
    <main>
      <h1 class="unseen">Agents</h1>
      <FilterBar error={first.error} />
      <p role="status" class="muted">{first.value ? `Over ${plural(first.value.traces, "trace")}` : !first.error && "Reading..."}</p>
      {isEmpty && <Nothing title="No agents, tools or models in these traces" />}
      {KINDS.map(([kind, title], place) => {
        const answer = answers[place];
        const rows = answer?.value?.rows ?? [];
        return isRead && rows.length > 0 && <Sums key={kind} kind={kind} title={title} rows={rows} />;
      })}
      {isRead && (handoffs.value?.rows.length ?? 0) > 0 && <Handoffs rows={handoffs.value?.rows ?? []} />}
      {!first.error && [...answers, handoffs].map((answer, place) => <Problem key={place} error={answer.error} />)}
    </main>
  );
}

function useStats(by: string, asked: object, key: string) {
  return useAnswer((signal) => command<Stats>("stats", { by, ...asked }, signal), key, 5_000);
}

function Sums({ kind, title, rows }: { kind: string; title: string; rows: StatsRow[] }) {
  const [isWhole, setWhole] = useState(false);
  const slowest = Math.max(...rows.map((row) => row.p99_ns), 1);
  const hasCost = rows.some((row) => row.cost_usd !== undefined);
  const { q: _, ...others } = place.value.params;
  return (
    <section>
      <h2 id={`sums-${kind}`}>{title}</h2>
      <table class="list" aria-labelledby={`sums-${kind}`}>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col" class="number">Calls</th>
            <th scope="col" class="number">Failed</th>
            <th scope="col" class="number">p50</th>
            <th scope="col" class="number wide">p95</th>
            <th scope="col" class="number wide">p99</th>
            <th scope="col" class="wider"><span class="unseen">Range of times</span></th>
            <th scope="col" class="number wide">Tokens in / out</th>
            {hasCost && <th scope="col" class="number">Cost</th>}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, isWhole ? rows.length : ROWS).map((row) => (
            <tr key={row.name}>
              <td>
                <a href={address("traces", "", { ...others, q: wordFor(kind, row.name) })}><bdi>{row.name}</bdi></a>
              </td>
              <td class="number">{count(row.count)}</td>
              <td class={`number ${row.errors > 0 ? "bad" : ""}`}>
                {count(row.errors)}
                {row.errors > 0 && row.count > 0 && <span class="muted wide"> {((row.errors / row.count) * 100).toFixed(0)}%</span>}
              </td>
              <td class="number">{duration(row.p50_ns)}</td>
              <td class="number wide">{duration(row.p95_ns)}</td>
              <td class="number wide">{duration(row.p99_ns)}</td>
              <td class="wider"><Range row={row} slowest={slowest} /></td>
              <td class="number wide">{row.total_tokens > 0 && `${brief(row.input_tokens)} / ${brief(row.output_tokens)}`}</td>
              {hasCost && <td class="number">{dollars(row.cost_usd)}</td>}
            </tr>
          ))}
        </tbody>
      </table>
      {!isWhole && rows.length > ROWS && <button type="button" class="more" onClick={() => setWhole(true)}>Show all {count(rows.length)}</button>}
    </section>
  );
}

/** A table of handoffs: one row for each giving agent, one column for each taking agent. */
function Handoffs({ rows }: { rows: StatsRow[] }) {
  const { from: givers, to: takers, counts } = matrix(rows);
  const [from, to] = [givers.slice(0, HANDOFFS_MAX), takers.slice(0, HANDOFFS_MAX)];
  const most = Math.max(...rows.map((row) => row.count), 1);
  return (
    <section>
      <h2 id="handoffs">Handoffs</h2>
      <div class="scrolled" tabIndex={0} role="region" aria-labelledby="handoffs">
        <table class="list still heat" aria-labelledby="handoffs">
          <thead>
            <tr>
              <th scope="col">From → to</th>
              {to.map((name) => <th key={name} scope="col" class="number"><bdi>{name}</bdi></th>)}
            </tr>
          </thead>
          <tbody>
            {from.map((name) => (
              <tr key={name}>
                <th scope="row"><bdi>{name}</bdi></th>
                {to.map((other) => {
                  const times = counts.get(name)?.get(other) ?? 0;
                  return <td key={other} class="number" style={{ "--heat": `${Math.ceil((times / most) * 4) * 9}%` }}>{times > 0 && count(times)}</td>;
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {(from.length < givers.length || to.length < takers.length) && <p class="muted">Only the busiest agents; <code>spanferry stats --by handoff</code> lists all.</p>}
    </section>
  );
}

/** The range from the median to the 99th percentile, relative to the slowest row. */
function Range({ row, slowest }: { row: StatsRow; slowest: number }) {
  const at = (ns: number) => (ns / slowest) * 100;
  return (
    <svg class="range" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
      <rect class="all" x={0} y={3} width={at(row.p99_ns)} height={2} />
      <rect class="most" x={0} y={1} width={at(row.p50_ns)} height={6} />
    </svg>
  );
}
