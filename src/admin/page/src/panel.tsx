// The contents of a span or of the entire trace, in tabs.
import type { ComponentChildren } from "preact";
import { useMemo, useRef } from "preact/hooks";
import { command, type SpanView, type Trace, type Verified } from "./api";
import { Conversation } from "./conversation";
import { DeliveryTab, NamedMarks } from "./delivery";
import { ofSpans } from "./fates";
import { count, dollars, duration, exact } from "./format";
import { failures } from "./lists";
import { Facts, Icon, Links, Problem, Sent, useAnswer } from "./parts";
import { place, set } from "./route";

const TABS = ["Conversation", "In/Out", "Attributes", "Raw", "Delivery"] as const;
type Tab = (typeof TABS)[number];

interface Props {
  trace: Trace;
  span: SpanView | undefined;
  verified: Verified | undefined;
  chooseSpan: (id: string) => void;
}

export function Panel(props: Props) {
  const { trace, span, verified } = props;
  const asked = place.value.params["tab"];
  const tab = TABS.find((tab) => tab === asked) ?? (span && !trace.conversation?.length ? "Attributes" : "Conversation");
  const list = useRef<HTMLDivElement>(null);
  const step = (by: number) => {
    const at = (TABS.indexOf(tab) + by + TABS.length) % TABS.length;
    set({ tab: TABS[at] }, true);
    list.current?.querySelectorAll("button")[at]?.focus();
  };
  return (
    <section class="panel" aria-label="Details">
      {span ? <Head span={span} verified={verified} /> : <h2 class="unseen">Details</h2>}
      <div
        role="tablist"
        aria-label="Details"
        ref={list}
        onKeyDown={(event) => {
          if (event.key === "ArrowRight") step(1);
          if (event.key === "ArrowLeft") step(-1);
        }}
      >
        {TABS.map((name) => (
          <button
            key={name}
            type="button"
            role="tab"
            id={`tab-${name}`}
            aria-selected={name === tab}
            aria-controls="details"
            tabIndex={name === tab ? 0 : -1}
            onClick={() => set({ tab: name }, true)}
          >
            {name}
          </button>
        ))}
      </div>
      <div id="details" role="tabpanel" aria-labelledby={`tab-${tab}`} tabIndex={0}>
        <Content tab={tab} {...props} />
      </div>
    </section>
  );
}

function Content({ tab, trace, span, verified, chooseSpan }: Props & { tab: Tab }) {
  const failed = useMemo(() => failures(trace), [trace]);
  if (tab === "Conversation") return <Conversation turns={trace.conversation ?? []} chosen={span?.span_id} choose={chooseSpan} failed={failed} />;
  if (tab === "Delivery") return <DeliveryTab verified={verified} span={span?.span_id} />;
  if (!span) return <p class="muted">Select a span to see its details.</p>;
  return <Line tab={tab} trace={trace} span={span} />;
}

function Head({ span, verified }: { span: SpanView; verified: Verified | undefined }) {
  const facts: [string, ComponentChildren][] = [
    ["Started after", span.start_unix_nano === 0 ? "unknown" : duration(span.after_ns)],
    ["Took", duration(span.duration_ns)],
  ];
  if (span.agent) facts.push(["Agent", <bdi>{span.agent}</bdi>]);
  if (span.tool) facts.push(["Tool", <bdi>{span.tool}</bdi>]);
  if (span.model) facts.push(["Model", <bdi>{span.model}</bdi>]);
  if (span.input_tokens !== undefined) facts.push(["Tokens", `${count(span.input_tokens)} in, ${count(span.output_tokens ?? 0)} out`]);
  if (span.cost_usd !== undefined) facts.push(["Cost", dollars(span.cost_usd)]);
  if (verified?.sinks.length) facts.push(["Sinks", <NamedMarks told={ofSpans(verified)(span.span_id)} />]);
  return (
    <div class="span-head">
      <h2><Icon kind={span.kind} /> <bdi>{span.name}</bdi></h2>
      <Facts facts={facts} />
      {span.error !== undefined && <pre class="problem" tabIndex={0} aria-label="Error">{span.error}</pre>}
    </div>
  );
}

/** The tabs that need the full contents of a span. */
function Line({ tab, trace, span }: { tab: Tab; trace: Trace; span: SpanView }) {
  const [id, spanId] = [trace.summary.trace_id, span.span_id];
  const answer = useAnswer((signal) => command<Trace>("traces/show", { id, span: spanId }, signal, exact), `${id} ${spanId}`);
  const line = answer.value?.line;
  if (answer.error) return <Problem error={answer.error} />;
  if (!line) return <p class="muted" role="status">Reading the span...</p>;
  return (
    <>
      {answer.value?.links && <p>Open in <Links links={answer.value.links} /></p>}
      {tab === "Raw" && <Sent text={JSON.stringify(line)} />}
      {tab === "Attributes" && <Attributes line={line} />}
      {tab === "In/Out" && <><Side title="In" value={line["input"]} /><Side title="Out" value={line["output"]} /></>}
    </>
  );
}

function Side({ title, value }: { title: string; value: unknown }) {
  return (
    <>
      <h3>{title}</h3>
      {value === undefined || value === null || value === "" ? <p class="muted">Nothing was sent.</p> : <Sent text={written(value)} />}
    </>
  );
}

const written = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));

/** Members that are shown elsewhere. */
const ELSEWHERE = new Set(["input", "output", "attributes", "resource", "events", "links", "openai_item"]);

function Attributes({ line }: { line: Record<string, unknown> }) {
  const own = Object.entries(line).filter(([name, value]) => !ELSEWHERE.has(name) && value !== null && value !== "");
  const groups: [string, [string, unknown][]][] = [
    ["Attributes", members(line["attributes"])],
    ["Facts", own],
    ["Resource", members(line["resource"])],
    ["Events", members(line["events"])],
    ["Links", members(line["links"])],
  ];
  return (
    <>
      {groups.map(([title, values]) => values.length > 0 && (
        <section key={title}>
          <h3>{title}</h3>
          <table class="attributes">
            <tbody>
              {values.map(([name, value]) => (
                <tr key={name}>
                  <th scope="row"><bdi>{name}</bdi></th>
                  <td><Sent text={written(value)} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      ))}
    </>
  );
}

const members = (value: unknown): [string, unknown][] => (value && typeof value === "object" ? Object.entries(value) : []);
