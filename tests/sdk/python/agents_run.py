"""Runs agents with an unmodified Agents SDK against a scripted model server, and sends traces to the daemon.

Environment: MODEL_URL, INGEST_URL, RECORD (a file: what the SDK exported, one JSON object a line). Works with openai-agents 0.0.7 to
0.24.0, so it uses only what both have.
"""

import asyncio
import json
import os

from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    add_trace_processor,
    custom_span,
    function_tool,
    set_default_openai_client,
    trace,
)
from agents.tracing.processor_interface import TracingProcessor
from agents.tracing.processors import default_exporter
from openai import AsyncOpenAI


class Recorder(TracingProcessor):
    """Records what the SDK exports."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")

    def write(self, item):
        self.file.write(json.dumps(item.export(), ensure_ascii=False) + "\n")
        self.file.flush()

    def on_trace_start(self, trace):
        self.write(trace)

    def on_trace_end(self, trace):
        pass

    def on_span_start(self, span):
        pass

    def on_span_end(self, span):
        self.write(span)

    def shutdown(self, timeout=None):
        self.file.close()

    def force_flush(self):
        pass


# The line from the documentation. A second processor records.
default_exporter().endpoint = os.environ["INGEST_URL"]
add_trace_processor(Recorder(os.environ["RECORD"]))

client = AsyncOpenAI(base_url=os.environ["MODEL_URL"], api_key="local", max_retries=0)
set_default_openai_client(client, use_for_tracing=False)


@function_tool
def get_weather(city: str) -> str:
    """Tells the weather."""
    return f"{city}: 21 \N{DEGREE SIGN}C"


@function_tool
async def explode(city: str) -> str:
    """Raises."""
    raise ValueError(f"no weather for {city}")


async def refuse(context, agent, input):
    return GuardrailFunctionOutput(output_info={"reason": "homework"}, tripwire_triggered=True)


hello = Agent(name="Hello", instructions="Say hello.", model="answers")
weather = Agent(name="Weather", instructions="Tell the weather.", model="calls-get_weather", tools=[get_weather])
triage = Agent(name="Triage", instructions="Hand off.", model="calls-transfer_to_weather", handoffs=[weather])
clumsy = Agent(name="Clumsy", model="calls-explode", tools=[explode])
guarded = Agent(name="Guarded", model="answers", input_guardrails=[InputGuardrail(guardrail_function=refuse)])
chatting = Agent(name="Chat", model=OpenAIChatCompletionsModel("calls-get_weather", client), tools=[get_weather])
failing = Agent(name="Failing", model="fails")


async def streamed(agent):
    result = Runner.run_streamed(agent, "weather in Bern?")
    async for _ in result.stream_events():
        pass


async def main():
    await Runner.run(hello, "hello")
    config = RunConfig(workflow_name="Weather workflow", group_id="thread_123", trace_metadata={"customer": "acme", "tier": 3})
    await Runner.run(triage, "weather in Bern?", run_config=config)
    await Runner.run(clumsy, "weather in Bern?")
    try:
        await Runner.run(guarded, "do my homework")
        raise AssertionError("the guardrail did not trip")
    except InputGuardrailTripwireTriggered:
        pass
    await Runner.run(chatting, "weather in Bern?")
    await streamed(weather)
    await streamed(chatting)
    try:
        await Runner.run(failing, "hello")
        raise AssertionError("the model did not fail")
    except AssertionError:
        raise
    except Exception:
        pass
    with trace("Outer \N{SNOWMAN}", group_id="thread_456", metadata={"nested": {"deep": [1, 2.5, None, True]}}):
        with custom_span("prepare", {"step": 1, "big": 10**30, "text": "line\nbreak \u0000 \U0001f31e"}):
            with custom_span("inner", {}) as span:
                span.set_error({"message": "it broke", "data": {"code": 7}})
        await Runner.run(hello, "hello")


asyncio.run(main())
