"""Sends spans with the unmodified OpenTelemetry SDK.

Environment: RECORD (a file: what was exported, one JSON object a line), PROTOCOL (grpc or http), ENDPOINT, COMPRESSION (none or gzip).
"""

import json
import os

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

GZIP = os.environ["COMPRESSION"] == "gzip"
if os.environ["PROTOCOL"] == "grpc":
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    coding = grpc.Compression.Gzip if GZIP else grpc.Compression.NoCompression
    exporter = OTLPSpanExporter(endpoint=os.environ["ENDPOINT"], insecure=True, compression=coding)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    coding = Compression.Gzip if GZIP else Compression.NoCompression
    exporter = OTLPSpanExporter(endpoint=os.environ["ENDPOINT"], compression=coding)


class Recorder(SpanExporter):
    """Records what the SDK exports."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")

    def export(self, spans):
        for span in spans:
            self.file.write(json.dumps(record(span), ensure_ascii=False) + "\n")
        self.file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.file.close()


def record(span):
    return {
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "kind": span.kind.name,
        "status": span.status.status_code.name,
        "status_message": span.status.description,
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "attributes": dict(span.attributes),
        "events": [[event.name, event.timestamp] for event in span.events],
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "service": span.resource.attributes["service.name"],
        "scope": span.instrumentation_scope.name,
    }


provider = TracerProvider(resource=Resource.create({"service.name": "sdk-suite", "deployment.environment.name": "test"}))
provider.add_span_processor(BatchSpanProcessor(exporter))
provider.add_span_processor(SimpleSpanProcessor(Recorder(os.environ["RECORD"])))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("sdk-suite", "1.0")

with tracer.start_as_current_span("request \N{SNOWMAN}", kind=SpanKind.SERVER, attributes={"http.request.method": "POST"}) as root:
    root.add_event("received", {"bytes": 12})
    generation = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1-mini",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    with tracer.start_as_current_span("chat gpt-4.1-mini", kind=SpanKind.CLIENT, attributes=generation):
        pass
    with tracer.start_as_current_span("broken", links=[Link(root.get_span_context())]) as broken:
        broken.set_status(Status(StatusCode.ERROR, "it broke"))
    try:
        with tracer.start_as_current_span("raising"):
            raise ValueError("oh no")
    except ValueError:
        pass

types = {"text": "\N{DEGREE SIGN}\U0001f31e\n", "int": -(2**63), "float": 0.1, "yes": True, "list": [1, 2], "empty": ""}
for number in range(1500):
    with tracer.start_as_current_span(f"many {number}", attributes={"number": number, **types}):
        pass

provider.shutdown()
