// The tree and the times of a trace in one grid. Only visible rows are drawn.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { SpanView, TraceSummary } from "./api";
import { Marks, sinks } from "./delivery";
import type { Told } from "./fates";
import { brief, count, dollars, duration } from "./format";
import { Icon } from "./parts";
import { isInside } from "./route";
import { bar, inSight, type Row, ticks } from "./tree";

const ROW_HEIGHT = 28;
const INDENT = 14;
const INDENTS_MAX = 24;

interface Props {
  rows: Row[];
  /** The indexes of the rows that are not below a collapsed one. */
  shown: number[];
  chosen: number;
  collapsed: ReadonlySet<string>;
  matches: number[];
  summary: TraceSummary;
  /** Returns the fates of a span at each sink, once they are known. */
  toldOf: ((id: string) => Told[]) | undefined;
  choose: (at: number | undefined) => void;
  step: (by: number) => void;
  fold: (id: string, isFolded: boolean) => void;
}

export function Tree(props: Props) {
  const { rows, shown, chosen, collapsed, summary, toldOf, choose, step, fold } = props;
  const grid = useRef<HTMLDivElement>(null);
  const [[scrolled, height], setSight] = useState([0, 600]);
  const look = () => {
    if (grid.current) setSight([grid.current.scrollTop, grid.current.clientHeight]);
  };
  useLayoutEffect(() => {
    look();
    if (isInside() && document.activeElement === document.body) grid.current?.focus();
    const watch = new ResizeObserver(look);
    if (grid.current) watch.observe(grid.current);
    return () => watch.disconnect();
  }, []);
  const line = shown.indexOf(chosen);
  useEffect(() => {
    const box = grid.current;
    if (!box || line < 0) return;
    const top = line * ROW_HEIGHT;
    const room = box.clientHeight - 2 * ROW_HEIGHT;
    if (top < box.scrollTop || box.scrollTop + room < top) box.scrollTop = Math.max(0, top - room / 2);
  }, [line]);
  const [first, last] = inSight(scrolled, height, ROW_HEIGHT, shown.length);
  const matched = useMemo(() => new Set(props.matches), [props.matches]);
  const row = rows[chosen];
  const id = row?.span.span_id ?? "";
  const [hasBelow, isFolded] = [row !== undefined && row.end > chosen + 1, collapsed.has(id)];
  const keys: Record<string, () => void> = {
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    PageDown: () => step(Math.floor(height / ROW_HEIGHT) - 2),
    PageUp: () => step(2 - Math.floor(height / ROW_HEIGHT)),
    Home: () => choose(shown[0]),
    End: () => choose(shown[shown.length - 1]),
    ArrowRight: () => (isFolded ? fold(id, false) : hasBelow && choose(chosen + 1)),
    ArrowLeft: () => (hasBelow && !isFolded ? fold(id, true) : choose(row?.parent)),
  };
  return (
    <div
      class="tree"
      ref={grid}
      role="treegrid"
      style={{ "--marks": `${sinks.value.length === 0 ? 0 : Math.min(8, Math.max(3, sinks.value.length)) * 13 + 8}px` }}
      tabIndex={0}
      aria-label="Spans"
      aria-rowcount={shown.length + 1}
      aria-activedescendant={line >= first && line < last ? `row-${chosen}` : undefined}
      onScroll={look}
      onKeyDown={(event) => {
        const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
        if (!act) return;
        event.preventDefault();
        act();
      }}
    >
      <div class="span head" role="row" aria-rowindex={1}>
        <div role="columnheader" class="what">Span</div>
        <div role="columnheader" class="when" aria-label="Time">
          {ticks(summary.duration_ns).map((at) => (
            <span key={at} class="tick" style={{ left: `${(at / summary.duration_ns) * 100}%` }}>{at === 0 ? "0" : duration(at)}</span>
          ))}
        </div>
        <div role="columnheader" class="took">Took</div>
        <div role="columnheader" class="where">{sinks.value.length > 0 && "Sinks"}</div>
      </div>
      <div class="rows" role="rowgroup" style={{ height: `${shown.length * ROW_HEIGHT}px` }}>
        {shown.slice(first, last).map((at, place) => {
          const row = rows[at];
          if (!row) return null;
          const hasBelow = row.end > at + 1;
          const isOpen = !collapsed.has(row.span.span_id);
          return (
            <div
              key={row.span.span_id + at}
              id={`row-${at}`}
              class={`span ${at === chosen ? "chosen" : ""} ${matched.has(at) ? "matched" : ""} ${row.span.error === undefined ? "" : "failed"}`}
              role="row"
              aria-rowindex={first + place + 2}
              aria-level={row.span.depth + 1}
              aria-selected={at === chosen}
              {...(hasBelow ? { "aria-expanded": isOpen } : {})}
              style={{ top: `${(first + place) * ROW_HEIGHT}px` }}
              onClick={() => choose(at)}
            >
              <What span={row.span} below={hasBelow ? row.end - at - 1 : 0} isOpen={isOpen} fold={() => fold(row.span.span_id, isOpen)} />
              <When span={row.span} length={summary.duration_ns} />
              <div role="gridcell" class="took">{duration(row.span.duration_ns)}</div>
              <div role="gridcell" class="where">{toldOf && <Marks told={toldOf(row.span.span_id)} />}</div>
            </div>
          );
        })}
      </div>
    </div>
  );
}

function What({ span, below, isOpen, fold }: { span: SpanView; below: number; isOpen: boolean; fold: () => void }) {
  const tokens = span.input_tokens !== undefined || span.output_tokens !== undefined;
  return (
    <div role="gridcell" class="what" style={{ paddingLeft: `${6 + Math.min(span.depth, INDENTS_MAX) * INDENT}px` }}>
      <span
        class={`twist ${below === 0 ? "none" : isOpen ? "open" : ""}`}
        aria-hidden="true"
        onClick={(event) => {
          event.stopPropagation();
          if (below > 0) fold();
        }}
      />
      <Icon kind={span.kind} />
      <bdi class="name" title={span.name}>{span.name}</bdi>
      {!isOpen && <span class="badge">+{count(below)}</span>}
      {span.is_astray && <span class="badge warn" title="Its parent was not received, or it is its own ancestor">orphan</span>}
      {span.error !== undefined && <span class="badge bad">error</span>}
      {span.model && !span.name.includes(span.model) && <span class="badge"><bdi>{span.model}</bdi></span>}
      {tokens && (
        <span class="badge" title="Tokens in, out">
          {brief(span.input_tokens ?? 0)} &#8594; {brief(span.output_tokens ?? 0)}
        </span>
      )}
      {span.cost_usd !== undefined && <span class="badge">{dollars(span.cost_usd)}</span>}
    </div>
  );
}

function When({ span, length }: { span: SpanView; length: number }) {
  const { left, width } = bar(span, length);
  return (
    <div role="gridcell" class="when" aria-label={`Started after ${duration(span.after_ns)}`}>
      <span class={`bar kind-${span.kind}`} style={{ left: `min(${left}%, 100% - 2px)`, width: `${width}%` }} />
    </div>
  );
}
