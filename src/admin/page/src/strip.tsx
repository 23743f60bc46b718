// Traces over time, by status; a segment can be selected.
import { useRef, useState } from "preact/hooks";
import type { TraceSummary } from "./api";
import { clock, count, plural } from "./format";
import { extent, strip } from "./lists";
import { set } from "./route";

const PIECES = 72;
const HEIGHT = 40;

export function Strip({ traces }: { traces: TraceSummary[] }) {
  const drawing = useRef<SVGSVGElement>(null);
  const [chosen, setChosen] = useState<[number, number]>();
  if (traces.length < 2) return null;
  const times = traces.map((trace) => trace.start_unix_nano / 1e6);
  const [from, last] = extent(times);
  const to = last + 1;
  const [before, after] = [times.filter((time) => time < from).length, times.filter((time) => time > to).length];
  const buckets = strip(traces, from, to, PIECES);
  const most = Math.max(...buckets.map((bucket) => bucket.ok + bucket.failed));
  const failed = traces.filter((trace) => trace.status === "error").length;
  const at = (event: PointerEvent) => {
    const box = drawing.current?.getBoundingClientRect();
    return box ? Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) : 0;
  };
  const choose = () => {
    setChosen(undefined);
    if (!chosen) return;
    const [first, last] = chosen[0] < chosen[1] ? chosen : [chosen[1], chosen[0]];
    if (last - first < 0.01) return;
    const time = (part: number) => new Date(from + part * (to - from)).toISOString();
    set({ from: time(first), to: time(last) });
  };
  return (
    <figure class="strip">
      <svg
        ref={drawing}
        viewBox={`0 0 ${PIECES * 10} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${plural(traces.length, "trace")} from ${clock(from)} to ${clock(to)}, ${failed} failed`}
        onPointerDown={(event) => {
          drawing.current?.setPointerCapture(event.pointerId);
          setChosen([at(event), at(event)]);
        }}
        onPointerMove={(event) => chosen && setChosen([chosen[0], at(event)])}
        onPointerUp={choose}
        onPointerCancel={() => setChosen(undefined)}
      >
        {buckets.map(({ ok, failed }, piece) => {
          const [low, high] = [(ok / most) * HEIGHT, (failed / most) * HEIGHT];
          return (
            <g key={piece}>
              <rect class="ok" x={piece * 10 + 1} width={8} y={HEIGHT - low} height={low} />
              <rect class="failed" x={piece * 10 + 1} width={8} y={HEIGHT - low - high} height={high} />
            </g>
          );
        })}
        {chosen && (
          <rect class="chosen" x={Math.min(...chosen) * PIECES * 10} width={Math.abs(chosen[1] - chosen[0]) * PIECES * 10} y={0} height={HEIGHT} />
        )}
      </svg>
      <figcaption class="muted">
        <span>{before > 0 && `${count(before)} before `}{clock(from)}</span>
        <span class="wide">drag to select a time range</span>
        <span>{after > 0 && `${count(after)} after `}{clock(to)}</span>
      </figcaption>
    </figure>
  );
}
