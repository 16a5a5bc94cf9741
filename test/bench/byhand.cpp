/*
 * byhand.cpp
 *		What is done by hand without streamext: a consumer of its own that writes to PostgreSQL in micro-batches.
 *
 * byhand BROKERS TOPIC RECORDS CONNINFO copy|staged|upsert|fold [BATCH]
 *
 * copy		COPY in binary form into the table byhand_events (device, site, ts, temperature, humidity), BATCH records a transaction
 * staged	what is usually written: COPY in text form of the needed columns into the unlogged table byhand_staging (device, ts,
 *			temperature), INSERT ... SELECT ... GROUP BY ... ON CONFLICT DO UPDATE of byhand_groups (device, w, n, total, low, high),
 *			and TRUNCATE, BATCH records a transaction; client and server in turn
 * upsert	BATCH records as three arrays of binary parameters to one prepared statement of that kind: no staging table
 * fold		the same, but the program itself aggregates a batch first and sends only its groups: half a stream processor, written for
 *			one query
 *
 * With upsert and fold the server works on one batch while the program parses the next. Windows are tumbling, of 10 s; BATCH is
 * 50,000 unless given.
 * Prints one line of JSON: records, seconds.
 */
#include <endian.h>
#include <libpq-fe.h>
#include <poll.h>

#include <charconv>
#include <string>

#include "groups.h"
#include "sensor.h"
#include "topic.h"

static constexpr int64_t WINDOW = 10000000;
static constexpr int64_t POSTGRES_EPOCH = 946684800000000; /* 2000-01-01 in microseconds since 1970 */
static constexpr uint32_t TEXT = 25, INT8 = 20, FLOAT8 = 701, TIMESTAMPTZ = 1184;

/* PostgreSQL's binary formats, appended. */
class Binary
{
public:
	std::vector<char> bytes;

	void
	int16(uint16_t value)
	{
		value = htobe16(value);
		raw(&value, sizeof value);
	}

	void
	int32(uint32_t value)
	{
		value = htobe32(value);
		raw(&value, sizeof value);
	}

	void
	int64(int64_t value)
	{
		uint64_t be = htobe64(static_cast<uint64_t>(value));

		raw(&be, sizeof be);
	}

	/* Values with their lengths, as fields of COPY and elements of arrays are. */
	void
	text(std::string_view value)
	{
		int32(static_cast<uint32_t>(value.size()));
		raw(value.data(), value.size());
	}

	void
	int8(int64_t value)
	{
		int32(8);
		int64(value);
	}

	void
	float8(double value)
	{
		int64_t bits;

		memcpy(&bits, &value, sizeof bits);
		int8(bits);
	}

	/* The head of a one-dimensional array; its length comes with finish_array(). */
	void
	start_array(uint32_t type)
	{
		bytes.clear();
		int32(1);
		int32(0);
		int32(type);
		int32(0);
		int32(1);
	}

	void
	finish_array(uint32_t length)
	{
		length = htobe32(length);
		memcpy(bytes.data() + 12, &length, sizeof length);
	}

	void
	raw(const void *data, size_t size)
	{
		const char *p = static_cast<const char *>(data);

		bytes.insert(bytes.end(), p, p + size);
	}
};

class Server
{
public:
	explicit Server(const char *conninfo)
	{
		connection = PQconnectdb(conninfo);
		if (PQstatus(connection) != CONNECTION_OK)
			die("connect", PQerrorMessage(connection));
	}

	~Server()
	{
		PQfinish(connection);
	}

	void
	run(const char *sql, ExecStatusType expected = PGRES_COMMAND_OK)
	{
		check(PQexec(connection, sql), expected);
	}

	void
	prepare(const char *sql)
	{
		check(PQprepare(connection, "s", sql, 0, nullptr), PGRES_COMMAND_OK);
	}

	/* Hands one execution of the prepared statement over and returns when it is sent; the one before must be finished. */
	void
	send(const std::vector<Binary> &parameters)
	{
		std::vector<const char *> values;
		std::vector<int>		  lengths, formats(parameters.size(), 1);

		for (auto &parameter : parameters)
		{
			values.push_back(parameter.bytes.data());
			lengths.push_back(static_cast<int>(parameter.bytes.size()));
		}
		if (!PQsendQueryPrepared(connection, "s", static_cast<int>(values.size()), values.data(), lengths.data(), formats.data(), 0))
			die("send", PQerrorMessage(connection));
		if (PQflush(connection))
			die("flush", PQerrorMessage(connection));
		waiting = true;
	}

	void
	finish()
	{
		if (!waiting)
			return;
		while (PGresult *result = PQgetResult(connection))
			check(result, PGRES_COMMAND_OK);
		waiting = false;
	}

	void
	start_copy(const char *sql, Binary &to)
	{
		run(sql, PGRES_COPY_IN);
		to.raw("PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
	}

	/* Gives what is there to the connection, and empties it. */
	void
	copy(Binary &from)
	{
		if (PQputCopyData(connection, from.bytes.data(), static_cast<int>(from.bytes.size())) != 1)
			die("copy", PQerrorMessage(connection));
		from.bytes.clear();
	}

	void
	finish_copy(Binary &from)
	{
		from.int16(static_cast<uint16_t>(-1));
		end_copy(from);
	}

	void
	end_copy(Binary &from)
	{
		copy(from);
		if (PQputCopyEnd(connection, nullptr) != 1)
			die("copy", PQerrorMessage(connection));
		while (PGresult *result = PQgetResult(connection))
			check(result, PGRES_COMMAND_OK);
	}

private:
	PGconn *connection;
	bool	waiting = false;

	void
	check(PGresult *result, ExecStatusType expected)
	{
		if (PQresultStatus(result) != expected)
			die("server", PQresultErrorMessage(result));
		PQclear(result);
	}
};

static void
copy(Topic &topic, Server &server, long records, long batch)
{
	static const char *const sql = "COPY byhand_events FROM STDIN (FORMAT binary)";
	SensorParser			 parser;
	Binary					 rows;
	long					 done = 0;

	topic.read(records, [&](const char *payload, size_t length) {
		Sensor record;

		if (done++ % batch == 0)
			server.start_copy(sql, rows);
		parser.parse(payload, length, record, true);
		rows.int16(5);
		rows.text(record.device);
		rows.text(record.site);
		rows.int8(microseconds(record.ts) - POSTGRES_EPOCH);
		rows.float8(record.temperature);
		rows.float8(record.humidity);
		if (done % batch == 0 || done == records)
			server.finish_copy(rows);
		else if (rows.bytes.size() > 60000)
			server.copy(rows);
	});
}

#define ON_CONFLICT \
	" ON CONFLICT (device, w) DO UPDATE SET n = g.n + excluded.n, total = g.total + excluded.total," \
	" low = least(g.low, excluded.low), high = greatest(g.high, excluded.high)"

static void
staged(Topic &topic, Server &server, long records, long batch)
{
	SensorParser parser;
	Binary		 rows;
	long		 done = 0;

	topic.read(records, [&](const char *payload, size_t length) {
		Sensor record;
		char   number[32];

		if (done++ % batch == 0)
		{
			server.run("BEGIN");
			server.run("COPY byhand_staging FROM STDIN", PGRES_COPY_IN);
		}
		parser.parse(payload, length, record);
		rows.raw(record.device.data(), record.device.size());
		rows.raw("\t", 1);
		rows.raw(record.ts.data(), record.ts.size());
		rows.raw("\t", 1);
		rows.raw(number, static_cast<size_t>(std::to_chars(number, number + sizeof number, record.temperature).ptr - number));
		rows.raw("\n", 1);
		if (done % batch == 0 || done == records)
		{
			server.end_copy(rows);
			server.run("INSERT INTO byhand_groups AS g SELECT device, date_bin('10 s', ts, '2000-01-01 00:00+00') AS w, count(*),"
					   " sum(temperature), min(temperature), max(temperature) FROM byhand_staging GROUP BY device, w" ON_CONFLICT);
			server.run("TRUNCATE byhand_staging");
			server.run("COMMIT");
		}
		else if (rows.bytes.size() > 60000)
			server.copy(rows);
	});
}

static void
upsert(Topic &topic, Server &server, long records, long batch)
{
	SensorParser		parser;
	std::vector<Binary> arrays(3);
	long				done = 0, held = 0;

	server.prepare("INSERT INTO byhand_groups AS g SELECT device, w, count(*), sum(value), min(value), max(value)"
				   " FROM unnest($1::text[], $2::timestamptz[], $3::float8[]) AS u (device, w, value) GROUP BY device, w" ON_CONFLICT);
	topic.read(records, [&](const char *payload, size_t length) {
		Sensor record;

		if (held == 0)
		{
			arrays[0].start_array(TEXT);
			arrays[1].start_array(TIMESTAMPTZ);
			arrays[2].start_array(FLOAT8);
		}
		parser.parse(payload, length, record);
		arrays[0].text(record.device);
		arrays[1].int8(microseconds(record.ts) / WINDOW * WINDOW - POSTGRES_EPOCH);
		arrays[2].float8(record.temperature);
		done++;
		if (++held == batch || done == records)
		{
			for (auto &array : arrays)
				array.finish_array(static_cast<uint32_t>(held));
			server.finish();
			server.send(arrays);
			held = 0;
		}
	});
	server.finish();
}

static void
fold(Topic &topic, Server &server, long records, long batch)
{
	SensorParser		parser;
	Groups				groups;
	std::vector<Binary> arrays(6);
	long				done = 0, held = 0;

	server.prepare("INSERT INTO byhand_groups AS g SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::float8[],"
				   " $5::float8[], $6::float8[])" ON_CONFLICT);
	topic.read(records, [&](const char *payload, size_t length) {
		Sensor record;

		parser.parse(payload, length, record);
		groups.add(record.device, microseconds(record.ts) / WINDOW, record.temperature);
		done++;
		if (++held < batch && done < records)
			return;
		for (size_t i = 0; i < arrays.size(); i++)
			arrays[i].start_array(i == 0 ? TEXT : i == 1 ? TIMESTAMPTZ : i == 2 ? INT8 : FLOAT8);
		groups.for_each([&](const Group &group, std::string_view device) {
			arrays[0].text(device);
			arrays[1].int8(group.window * WINDOW - POSTGRES_EPOCH);
			arrays[2].int8(group.count);
			arrays[3].float8(group.sum);
			arrays[4].float8(group.min);
			arrays[5].float8(group.max);
		});
		for (auto &array : arrays)
			array.finish_array(static_cast<uint32_t>(groups.size()));
		server.finish();
		server.send(arrays);
		groups.clear();
		held = 0;
	});
	server.finish();
}

int
main(int argc, char **argv)
{
	if (argc != 6 && argc != 7)
		die("usage: byhand BROKERS TOPIC RECORDS CONNINFO copy|staged|upsert|fold [BATCH]");

	std::string what = argv[5];
	long		records = atol(argv[3]), batch = argc == 7 ? atol(argv[6]) : 50000;
	Topic		topic(argv[1], argv[2]);
	Server		server(argv[4]);
	Stopwatch	watch;

	if (what == "copy")
		copy(topic, server, records, batch);
	else if (what == "staged")
		staged(topic, server, records, batch);
	else if (what == "upsert")
		upsert(topic, server, records, batch);
	else if (what == "fold")
		fold(topic, server, records, batch);
	else
		die("copy, staged, upsert or fold?");
	printf("{\"records\": %ld, \"seconds\": %.6f}\n", records, watch.seconds());
	return 0;
}
