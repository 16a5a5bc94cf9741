"""decode_in_spark.py RUNNER: reads {"plan", "records": hex or null} on stdin; for each record a line: null if it is not plain, else its columns as text."""

import importlib.util
import json
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spec = importlib.util.spec_from_file_location("runner", sys.argv[1])
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
given = json.load(sys.stdin)
spark = SparkSession.builder.master("local[1]").config("spark.sql.caseSensitive", "true").config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC").config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.ansi.enabled", "false").config("spark.sql.legacy.timeParserPolicy", "CORRECTED").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
shape = runner.Shape(given["plan"])
rows = [(i, None if r is None else bytearray.fromhex(r)) for i, r in enumerate(given["records"])]
df = spark.createDataFrame(rows, "`offset` bigint, `value` binary").selectExpr("'t' AS topic", "0 AS partition", "offset", "timestamp_micros(1714564800000000) AS timestamp", "CAST(NULL AS BINARY) AS key", "value")
where, columns = shape.records()
df = df.selectExpr(*columns).selectExpr("*", *shape.tokens).selectExpr("*", *shape.values)
df = df.selectExpr(*shape.raw_columns, *shape.names, f"({shape.certain}) AS __certain").selectExpr(*shape.classify(given["latest_us"]))
texts = []
for column in given["plan"]["columns"]:
    it = runner.name(column["name"])
    texts.append(f"nullif({runner.copy_text(it, 'interval')}, '\\\\N')" if column["engine_type"] == runner.INTERVAL else f"CAST({it} AS STRING)")
for row in df.selectExpr("__class", *texts).collect():
    print(json.dumps(None if row[0] == runner.SENT else list(row)[1:]))
spark.stop()
