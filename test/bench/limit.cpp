/*
 * limit.cpp
 *		What the machine can do at most: librdkafka delivers, simdjson parses, a hash table aggregates. No SQL, no recovery.
 *
 * limit BROKERS TOPIC RECORDS raw|parse|aggregate [WINDOW]
 *
 * Reads RECORDS records of TOPIC from its beginning and prints one line of JSON: records, seconds from the first request for
 * data on, groups, and two check sums: the sum of all counts and of all sums. `parse` takes the four fields that the benchmark's views need; `aggregate`
 * folds count, sum, min and max of temperature by device and tumbling window of WINDOW seconds (default 10, 0: by device alone).
 */
#include "groups.h"
#include "sensor.h"
#include "topic.h"

int
main(int argc, char **argv)
{
	if (argc != 5 && argc != 6)
		die("usage: limit BROKERS TOPIC RECORDS raw|parse|aggregate [WINDOW]");

	long		 wanted = atol(argv[3]);
	bool		 parse = strcmp(argv[4], "raw") != 0, aggregate = strcmp(argv[4], "aggregate") == 0;
	int64_t		 window = (argc == 6 ? atol(argv[5]) : 10) * 1000000;
	Topic		 topic(argv[1], argv[2]);
	SensorParser parser;
	Groups		 groups;
	long		 bytes = 0;
	double		 total = 0;
	Stopwatch	 watch;

	topic.read(wanted, [&](const char *payload, size_t length) {
		Sensor record;

		bytes += length;
		if (!parse)
			return;
		parser.parse(payload, length, record);
		total += record.temperature + record.humidity;
		if (aggregate)
		{
			int64_t at = microseconds(record.ts);

			groups.add(record.device, window ? at / window : 0, record.temperature);
		}
	});

	double	elapsed = watch.seconds(), sums = 0;
	int64_t counts = 0;

	groups.for_each([&](const Group &group, std::string_view) {
		counts += group.count;
		sums += group.sum;
	});
	printf("{\"records\": %ld, \"seconds\": %.6f, \"bytes\": %ld, \"groups\": %zu, \"counts\": %ld, \"sums\": %.3f, \"total\": %.3f}\n",
		   wanted, elapsed, bytes, groups.size(), static_cast<long>(counts), sums, total);
	return 0;
}
