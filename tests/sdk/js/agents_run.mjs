// Runs agents with an unmodified Agents SDK against a scripted model server, and sends traces to the daemon.
//
// Environment: MODEL_URL, INGEST_URL, RECORD (a file: what the SDK exported, one JSON object a line). Works with @openai/agents 0.0.17
// to 0.20.0, so it uses only what both have.
import { appendFileSync } from 'node:fs';
import {
  Agent,
  BatchTraceProcessor,
  InputGuardrailTripwireTriggered,
  OpenAIProvider,
  OpenAITracingExporter,
  Runner,
  getGlobalTraceProvider,
  setTraceProcessors,
  tool,
  withCustomSpan,
  withTrace,
} from '@openai/agents';
import { z } from 'zod';

const { MODEL_URL, INGEST_URL, RECORD } = process.env;
const record = (item) => appendFileSync(RECORD, JSON.stringify(item.toJSON()) + '\n');
const recorder = {
  onTraceStart: async (trace) => record(trace),
  onTraceEnd: async () => {},
  onSpanStart: async () => {},
  onSpanEnd: async (span) => record(span),
  shutdown: async () => {},
  forceFlush: async () => {},
};
// The line from the documentation. A second processor records.
const exporter = new OpenAITracingExporter({ endpoint: INGEST_URL, apiKey: 'local' });
setTraceProcessors([new BatchTraceProcessor(exporter), recorder]);

const provider = (useResponses) => new OpenAIProvider({ apiKey: 'local', baseURL: MODEL_URL, useResponses });
const responses = (more) => new Runner({ modelProvider: provider(true), ...more });
const chat = new Runner({ modelProvider: provider(false) });

const parameters = z.object({ city: z.string() });
const getWeather = tool({
  name: 'get_weather',
  description: 'Tells the weather.',
  parameters,
  execute: async ({ city }) => `${city}: 21 \u00b0C`,
});
const explode = tool({
  name: 'explode',
  description: 'Raises.',
  parameters,
  execute: async ({ city }) => {
    throw new Error(`no weather for ${city}`);
  },
});
const refuse = {
  name: 'no_homework',
  execute: async () => ({ outputInfo: { reason: 'homework' }, tripwireTriggered: true }),
};

const hello = new Agent({ name: 'Hello', instructions: 'Say hello.', model: 'answers' });
const weather = new Agent({ name: 'Weather', instructions: 'Tell the weather.', model: 'calls-get_weather', tools: [getWeather] });
const triage = new Agent({
  name: 'Triage',
  instructions: 'Hand off.',
  model: 'calls-transfer_to_Weather',
  handoffs: [weather],
});
const clumsy = new Agent({ name: 'Clumsy', instructions: 'Be clumsy.', model: 'calls-explode', tools: [explode] });
const guarded = new Agent({ name: 'Guarded', instructions: 'Refuse.', model: 'answers', inputGuardrails: [refuse] });
const failing = new Agent({ name: 'Failing', instructions: 'Fail.', model: 'fails' });

async function fails(promise, kind) {
  let error;
  await promise.catch((raised) => (error = raised));
  if (!(error instanceof kind)) throw new Error(`expected ${kind.name}, got ${error}`);
}

async function streamed(runner, agent) {
  const result = await runner.run(agent, 'weather in Bern?', { stream: true });
  for await (const _ of result) {
    // Reads everything, as an application would.
  }
  await result.completed;
}

await responses().run(hello, 'hello');
const named = { workflowName: 'Weather workflow', groupId: 'thread_123', traceMetadata: { customer: 'acme', tier: '3' } };
await responses(named).run(triage, 'weather in Bern?');
await responses().run(clumsy, 'weather in Bern?');
await fails(responses().run(guarded, 'do my homework'), InputGuardrailTripwireTriggered);
await chat.run(weather, 'weather in Bern?');
await streamed(responses(), weather);
await streamed(chat, weather);
await fails(responses().run(failing, 'hello'), Error);
await withTrace(
  'Outer \u2603',
  async () => {
    const data = { step: 1, text: 'line\nbreak \u0000 \u{1f31e}' };
    await withCustomSpan(
      async () => {
        await withCustomSpan(async (span) => span.setError({ message: 'it broke', data: { code: 7 } }), {
          data: { name: 'inner', data: {} },
        });
      },
      { data: { name: 'prepare', data } },
    );
    await responses().run(hello, 'hello');
  },
  { groupId: 'thread_456', metadata: { nested: { deep: [1, 2.5, null, true] } } },
);
await getGlobalTraceProvider().forceFlush();
