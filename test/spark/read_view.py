"""read_view.py JDBC_URL: what docs/scale.md shows for reading a view's closed windows from Spark; prints what it found as JSON."""

import json
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spark = SparkSession.builder.appName("read a view").config("spark.sql.session.timeZone", "UTC").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
closed = "(SELECT device, w, n, mean FROM tumble WHERE w >= '2024-05-01 12:00Z' AND w < '2024-05-01 12:05Z') AS closed"
table = (spark.read.format("jdbc").option("url", sys.argv[1]).option("user", "postgres").option("driver", "org.postgresql.Driver").option("dbtable", closed)
         .option("partitionColumn", "w").option("lowerBound", "2024-05-01 12:00:00").option("upperBound", "2024-05-01 12:05:00").option("numPartitions", "5").load())  # fmt: skip
row = table.agg(F.count("*"), F.sum("n"), F.sum("mean")).first()
print("FOUND", json.dumps([row[0], row[1], row[2], table.rdd.getNumPartitions()]), flush=True)
spark.stop()
