#!/usr/bin/env python3
"""Generates the table of prices that is built into spanferry, and the values that tests expect, from the package genai-prices.

Run it by hand, in a separate environment, and read the difference before committing it:

    python3 -m venv /path/to/venv && /path/to/venv/bin/pip install --upgrade genai-prices
    /path/to/venv/bin/python tools/prices.py 2026-11-29

The date is that of the table; it follows `table:` in `cost_source`. The table has the shape of the package's own data (version 2),
reduced to what is used, and its numbers are the package's. The package computes all expected costs.
"""

import gzip
import json
import sys
from datetime import datetime, timezone
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from pathlib import Path

from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ModelPrice, StartDateConstraint, TieredPrices

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "src/prices/table.json.gz"
EXPECTED = ROOT / "tests/golden/prices/expected.jsonl"

# The counts that spans report.
KEYS = [
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "input_audio_mtok",
    "output_audio_mtok", "output_reasoning_mtok", "cache_audio_read_mtok", "requests_kcount",
]


def number(amount: Decimal) -> float | int:
    written = int(amount) if amount == amount.to_integral_value() else float(amount)
    assert Decimal(repr(written)) == amount, amount
    return written


def clause(match):
    (name, value), = vars(match).items()
    return {name.rstrip("_"): [clause(one) for one in value] if isinstance(value, list) else value}


def rates(prices: ModelPrice):
    found = {}
    for key in KEYS:
        match getattr(prices, key):
            case TieredPrices(base=base, tiers=tiers):
                tiers = [{"start": tier.start, "price": number(tier.price)} for tier in tiers]
                found[key] = {"base": number(base), "tiers": tiers}
            case Decimal() as price:
                found[key] = number(price)
    return found


def dated(price):
    constraint = price.constraint
    if constraint is None:
        return {"prices": rates(price.prices)}
    if isinstance(constraint, StartDateConstraint):
        when = {"start_date": constraint.start_date.isoformat()}
    else:
        when = {"start_time": constraint.start_time.isoformat(), "end_time": constraint.end_time.isoformat()}
    return {"constraint": when, "prices": rates(price.prices)}


def model(it):
    prices = rates(it.prices) if isinstance(it.prices, ModelPrice) else [dated(price) for price in it.prices]
    return {"id": it.id, "match": clause(it.match), "prices": prices}


def provider(it):
    found = {"id": it.id}
    for name in ["model_match", "provider_match"]:
        if getattr(it, name):
            found[name] = clause(getattr(it, name))
    if it.fallback_model_providers:
        found["fallback_model_providers"] = it.fallback_model_providers
    return found | {"models": [model(one) for one in it.models]}


SNAPSHOT = DataSnapshot(providers=providers, from_auto_update=False)
NANO = Decimal("1e-9")
AT = "2026-11-01T12:00:00"


def cost(provider_id, model_ref, at, usage):
    """Returns billionths of a dollar; None if the package knows no price or finds the counts contradictory."""
    time = datetime.fromisoformat(at).replace(tzinfo=timezone.utc)
    try:
        found, it = SNAPSHOT.find_provider_model(model_ref, None, provider_id, None)
        priced = it.get_prices(time)
        if not rates(priced):
            return None
        # Kinds of usage that spans do not count are free here too.
        total = it.calc_price(Usage(**usage), found, genai_request_timestamp=time).total_price
    except (LookupError, ValueError):
        return None
    return int((total / NANO).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def calls():
    plain = {"input_tokens": 1234, "output_tokens": 567}
    cached = {"input_tokens": 10_000, "output_tokens": 321, "cache_read_tokens": 8_192}
    written = {"input_tokens": 25_001, "output_tokens": 777, "cache_read_tokens": 20_000, "cache_write_tokens": 3_000}
    hour = written | {"cache_write_1h_tokens": 1_000}
    long = {"input_tokens": 200_001, "output_tokens": 9_001, "cache_read_tokens": 150_000}
    edge = long | {"input_tokens": 200_000}
    voice = {"input_tokens": 900, "output_tokens": 800, "input_audio_tokens": 700, "output_audio_tokens": 600}
    deep = {"input_tokens": 100, "output_tokens": 5_000, "output_reasoning_tokens": 4_096}
    for name in ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "gpt-5-mini", "gpt-5-nano", "o3", "o4-mini", "GPT-4o-2024-08-06"]:
        for usage in [plain, cached, deep]:
            yield "openai", name, AT, usage
    for day in ["2025-06-09T23:59:59", "2025-06-10T00:00:00"]:
        yield "openai", "o3", day, cached
    for name in ["claude-sonnet-4-5-20250929", "claude-opus-4-1", "claude-haiku-4-5", "claude-3-5-haiku-latest"]:
        for usage in [plain, written, hour]:
            yield "anthropic", name, AT, usage
    for day in ["2026-03-12T23:59:59", "2026-03-13T00:00:00"]:
        for usage in [edge, long]:
            yield "anthropic", "claude-opus-4-6", day, usage
    for name in ["gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"]:
        for usage in [plain, edge, long]:
            yield "google", name, AT, usage
    for name in [
        "anthropic.claude-3-5-sonnet-20241022-v2:0", "us.anthropic.claude-sonnet-4-20250514-v1:0", "amazon.nova-pro-v1:0",
        "amazon.nova-lite-v1:0", "meta.llama3-3-70b-instruct-v1:0",
    ]:
        yield "aws", name, AT, plain
        yield "aws", name, AT, written
    for day in ["2025-03-01T12:00:00", "2025-03-01T17:00:00", "2025-03-01T23:59:00", AT]:
        yield "deepseek", "deepseek-chat", day, cached
    for name in ["gpt-4o-audio-preview", "gpt-realtime", "gpt-4o-realtime-preview"]:
        yield "openai", name, AT, voice
        yield "openai", name, AT, voice | {"cache_read_tokens": 100}
    yield "azure", "gpt-4o", AT, plain
    yield "google", "claude-sonnet-4-5@20250929", AT, plain
    yield "mistral", "mistral-large-latest", AT, plain
    yield "x-ai", "grok-3", AT, plain
    yield "perplexity", "sonar", AT, plain
    yield "openrouter", "anthropic/claude-sonnet-4.5", AT, plain
    for name in ["claude-sonnet-4-5", "gpt-4o", "gemini-2.5-pro", "mistral-large-latest", "o3-mini", "grok-3", "nobody-knows-it"]:
        yield None, name, AT, plain
    yield "ollama", "gpt-4o", AT, plain
    yield "openai", "gpt-17-unheard-of", AT, plain
    yield "openai", "gpt-4o-20240806", AT, plain
    yield "anthropic", "claude-sonnet-4-5", AT, {"input_tokens": 10, "output_tokens": 1, "cache_read_tokens": 11}
    yield "openai", "gpt-4o", AT, {"input_tokens": 0, "output_tokens": 0}
    # Every fourth model of the package, by its own name.
    every = [(one.id, it.id) for one in providers for it in one.models]
    for place, (provider_id, name) in enumerate(every[::4]):
        yield provider_id, name, AT, [plain, cached, written, long][place % 4]


def main(date: str):
    datetime.fromisoformat(date)
    table = {"date": date, "source": f"genai-prices {version('genai-prices')}", "providers": [provider(it) for it in providers]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    TABLE.write_bytes(gzip.compress(text, 9, mtime=0))
    lines = []
    for provider_id, name, at, usage in calls():
        nano = cost(provider_id, name, at, usage)
        line = {"provider": provider_id, "model": name, "at": at + "Z", "usage": usage, "nano_usd": nano}
        lines.append(json.dumps(line, separators=(",", ":")) + "\n")
    EXPECTED.parent.mkdir(parents=True, exist_ok=True)
    EXPECTED.write_text("".join(lines))
    print(f"{len(text)} bytes, {TABLE.stat().st_size} compressed; {len(lines)} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
