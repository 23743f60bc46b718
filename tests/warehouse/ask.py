"""Runs the statements of docs/warehouse.md in one engine, in a folder with traces: `ask.py PAGE ENGINE`.

Prints `{format: {question: rows}}` as one line of JSON. A statement is a fenced block that names itself and the engines that it is for.
"""

import json
import math
import re
import sys
from glob import glob

QUESTIONS = ["latency", "tokens", "errors", "drift"]


def statements(page, engine):
    blocks = re.findall(r"^```\w+ (\S+) ([^\n]+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return {name: text.strip() for name, engines, text in blocks if engine in engines.split()}


def plain(value):
    """Converts a cell to JSON: null for a missing value, the day for a time."""
    if value is None or value != value or isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        return value
    if hasattr(value, "year"):
        return str(value)[:10]
    return float(value)


def duckdb(known, run, answers):
    import duckdb

    for form in ["parquet", "jsonl"]:
        base = duckdb.connect()
        base.execute(known[f"open-{form}"])
        run(form, lambda statement: base.execute(statement).fetchall())
        if form == "parquet":
            # A maximum requires reading everything.
            base.execute("SELECT max(COLUMNS(*)) FROM spans").fetchall()
            counts = base.execute("SELECT count(COLUMNS(*)) FROM spans")
            answers["columns"] = dict(zip((column[0] for column in counts.description), counts.fetchone()))


def clickhouse(known, run, answers):
    from chdb.session import Session

    for form in ["parquet", "jsonl"]:
        base = Session()
        base.query(known[f"open-{form}"])
        run(form, lambda statement: json.loads(base.query(statement, "JSONCompact").bytes())["data"])
        base.close()


def spark(known, run, answers):
    from pyspark.sql import SparkSession

    small = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.driver.host": "127.0.0.1"}
    spark = SparkSession.builder.master("local[2]").config(map=small).getOrCreate()
    for form in ["parquet", "jsonl"]:
        exec(known[f"open-{form}"], {"spark": spark})
        run(form, lambda statement: [tuple(row) for row in spark.sql(statement).collect()])
    spark.stop()


def pandas(known, run, answers):
    import pandas

    for form in ["parquet", "jsonl"]:
        names = {"pandas": pandas, "glob": glob}
        exec(known[f"open-{form}"], names)
        run(form, lambda expression: eval(expression, names).reset_index().itertuples(index=False))
        if form == "parquet":
            answers["columns"] = {name: int(count) for name, count in names["spans"].count().items()}


def sqlite(known, run, answers):
    import sqlite3

    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE raw (line TEXT)")
    with open("traces.jsonl", encoding="utf-8", newline="\n") as lines:
        base.executemany("INSERT INTO raw VALUES (?)", ((line,) for line in lines))
    base.execute(known["open-jsonl"])
    run("jsonl", lambda statement: base.execute(statement).fetchall())


def main():
    page, engine = open(sys.argv[1], encoding="utf-8").read(), sys.argv[2]
    known = statements(page, engine)
    answers = {}

    def run(form, ask):
        answers[form] = {name: [[plain(cell) for cell in row] for row in ask(known[name])] for name in QUESTIONS}

    globals()[engine](known, run, answers)
    print(json.dumps(answers))


main()
