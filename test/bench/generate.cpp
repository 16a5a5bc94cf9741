/*
 * generate.cpp
 *		The benchmark's sensor records, the same for the same parameters wherever they go.
 *
 * generate load BROKERS TOPIC RECORDS DEVICES PARTITIONS SIZE	into a topic, device i in partition i modulo PARTITIONS
 * generate rows RECORDS DEVICES								as COPY's text format on standard output
 * generate flow BROKERS TOPIC RATE DEVICES PARTITIONS			RATE records a second with the present time, until killed
 * generate mqtt PORT TOPIC RATE DEVICES					the same to mosquitto at QoS 0
 * generate publish PORT TOPIC RECORDS DEVICES QOS			the records of `load` to mosquitto, as fast as it takes them
 *
 * Like the harness's Plant: records of random devices evenly over ten minutes, up to two seconds out of order, temperature and
 * humidity multiples of 1/8, so that sums of them are exact in any order. SIZE pads a record to so many bytes (0: as it is, about 117).
 */
#include <time.h>

#include <string>
#include <thread>

#include "mqtt.h"
#include "topic.h"

static constexpr int64_t START = 1714564800000; /* 2024-05-01 12:00:00 UTC, milliseconds since 1970 */
static constexpr int64_t SPAN = 600000;
static constexpr int64_t DISORDER = 2000;

struct Reading
{
	int		device;
	int64_t ts;							/* milliseconds since 1970 */
	int		temperature8, humidity8;	/* in eighths */
};

class Plant
{
public:
	explicit Plant(int devices) : devices(devices)
	{
	}

	Reading
	reading(int64_t at)
	{
		int device = below(devices);

		return {device, at - static_cast<int64_t>(below(DISORDER)), device % 80 + static_cast<int>(below(160)),
				static_cast<int>(below(800))};
	}

private:
	int		 devices;
	uint64_t state = 1;

	/* splitmix64 */
	uint32_t
	below(uint32_t n)
	{
		uint64_t z = state += 0x9E3779B97F4A7C15ul;

		z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ul;
		z = (z ^ (z >> 27)) * 0x94D049BB133111EBul;
		z ^= z >> 31;
		return static_cast<uint32_t>(((z >> 32) * n) >> 32);
	}
};

static char *
put_number(char *p, long value, int width)
{
	char digits[20];
	int	 n = 0;

	do
		digits[n++] = '0' + value % 10;
	while (value /= 10);
	while (n < width)
		digits[n++] = '0';
	while (n > 0)
		*p++ = digits[--n];
	return p;
}

static char *
put_text(char *p, const char *text)
{
	size_t n = strlen(text);

	memcpy(p, text, n);
	return p + n;
}

static char *
put_eighths(char *p, int eighths)
{
	static const char *const fractions[] = {".0", ".125", ".25", ".375", ".5", ".625", ".75", ".875"};

	return put_text(put_number(p, eighths / 8, 1), fractions[eighths % 8]);
}

static char *
put_time(char *p, int64_t milliseconds)
{
	static time_t known = -1;
	static char	  text[32];
	time_t		  seconds = milliseconds / 1000;

	if (seconds != known)
	{
		struct tm tm;

		gmtime_r(&seconds, &tm);
		strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.", &tm);
		known = seconds;
	}
	return put_text(put_number(put_text(p, text), milliseconds % 1000, 3), "+00:00");
}

static size_t
put_json(char *to, const Reading &r, size_t size)
{
	char *p = to;

	p = put_number(put_text(p, "{\"device\":\"device-"), r.device, 4);
	p = put_number(put_text(p, "\",\"site\":\"site-"), r.device % 20, 2);
	p = put_time(put_text(p, "\",\"ts\":\""), r.ts);
	p = put_eighths(put_text(p, "\",\"temperature\":"), r.temperature8);
	p = put_eighths(put_text(p, ",\"humidity\":"), r.humidity8);
	if (size > static_cast<size_t>(p - to) + 14)
	{
		size_t fill = size - (p - to) - 14;

		p = put_text(p, ",\"padding\":\"");
		memset(p, 'x', fill);
		p = put_text(p + fill, "\"");
	}
	*p++ = '}';
	return p - to;
}

static size_t
put_row(char *to, const Reading &r)
{
	char *p = to;

	p = put_number(put_text(p, "device-"), r.device, 4);
	p = put_number(put_text(p, "\tsite-"), r.device % 20, 2);
	p = put_time(put_text(p, "\t"), r.ts);
	p = put_eighths(put_text(p, "\t"), r.temperature8);
	p = put_eighths(put_text(p, "\t"), r.humidity8);
	*p++ = '\n';
	return p - to;
}

static long undelivered;

static void
delivered(rd_kafka_t *, const rd_kafka_message_t *message, void *)
{
	if (message->err)
		undelivered++;
}

/* Takes records one by one and hands them to librdkafka a thousand at a time. */
class Sender
{
public:
	Sender(const char *brokers, const char *name, const char *linger)
	{
		client = open_client(RD_KAFKA_PRODUCER, {{"bootstrap.servers", brokers},
												 {"linger.ms", linger},
												 {"enable.idempotence", "true"}, /* else a retry changes the order */
												 {"log_level", "3"},
												 {"queue.buffering.max.messages", "1000000"},
												 {"queue.buffering.max.kbytes", "2097151"}},
							 delivered);
		topic = rd_kafka_topic_new(client, name, nullptr);
	}

	void
	send(const Reading &r, int partition, size_t size)
	{
		size_t need = (size > 256 ? size : 256) + 16;

		if (arena.size() < BATCH * need)
			arena.resize(BATCH * need);

		char *at = arena.data() + messages.size() * need;

		messages.push_back({});
		messages.back().payload = at;
		messages.back().len = put_json(at, r, size);
		messages.back().partition = partition;
		if (messages.size() == BATCH)
			flush();
	}

	void
	flush()
	{
		int n = static_cast<int>(messages.size());

		/* Never into a full queue: order within a partition is part of what is deterministic. */
		do
			rd_kafka_poll(client, rd_kafka_outq_len(client) > QUEUE - n ? 10 : 0);
		while (rd_kafka_outq_len(client) > QUEUE - n);
		if (n > 0 && rd_kafka_produce_batch(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY | RD_KAFKA_MSG_F_PARTITION, messages.data(), n) != n)
			die("produce");
		messages.clear();
	}

	~Sender()
	{
		flush();
		if (rd_kafka_flush(client, 120000) || undelivered)
			die("not all was delivered");
		rd_kafka_topic_destroy(topic);
		rd_kafka_destroy(client);
	}

private:
	static constexpr int			QUEUE = 500000;
	static constexpr size_t			BATCH = 1000;
	rd_kafka_t					   *client;
	rd_kafka_topic_t			   *topic;
	std::vector<rd_kafka_message_t> messages;
	std::vector<char>				arena;
};

static void
load(char **a)
{
	long   records = atol(a[2]);
	int	   devices = atoi(a[3]), partitions = atoi(a[4]);
	Sender sender(a[0], a[1], "20");
	Plant  plant(devices);

	for (long i = 0; i < records; i++)
	{
		Reading r = plant.reading(START + SPAN * i / records);

		sender.send(r, r.device % partitions, atol(a[5]));
	}
}

static void
rows(char **a)
{
	long			  records = atol(a[0]);
	Plant			  plant(atoi(a[1]));
	std::vector<char> buffer(1 << 20);
	size_t			  used = 0;

	for (long i = 0; i < records; i++)
	{
		used += put_row(buffer.data() + used, plant.reading(START + SPAN * i / records));
		if (used > buffer.size() - 1024 || i == records - 1)
		{
			if (fwrite(buffer.data(), 1, used, stdout) != used)
				die("write");
			used = 0;
		}
	}
}

/* Calls send(reading) `rate` times a second, a millisecond's worth at a time, and flush() after each. */
template <typename Send, typename Flush>
[[noreturn]] static void
at_rate(double rate, int devices, Send send, Flush flush)
{
	Plant	  plant(devices);
	Stopwatch watch;
	long	  sent = 0;

	for (;;)
	{
		long	due = static_cast<long>(watch.seconds() * rate);
		int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();

		for (; sent < due; sent++)
		{
			Reading r = plant.reading(now);

			r.ts = now;
			send(r);
		}
		flush();
		std::this_thread::sleep_for(std::chrono::milliseconds(1));
	}
}

[[noreturn]] static void
flow(char **a)
{
	int	   partitions = atoi(a[4]);
	Sender sender(a[0], a[1], "1");

	at_rate(atof(a[2]), atoi(a[3]), [&](const Reading &r) { sender.send(r, r.device % partitions, 0); }, [&] { sender.flush(); });
}

[[noreturn]] static void
mqtt(char **a)
{
	MqttLink	link(atoi(a[0]), "generate");
	std::string topic = std::string(a[1]) + "/flow";
	char		json[512];

	at_rate(
		atof(a[2]), atoi(a[3]), [&](const Reading &r) { link.publish(topic, {json, put_json(json, r, 0)}, 0); }, [&] { link.flush(); });
}

static void
publish(char **a)
{
	MqttLink			  link(atoi(a[0]), "generate");
	long				  records = atol(a[2]);
	int					  qos = atoi(a[4]);
	long				  most = qos == 2 ? 20 : 1000; /* in flight: of QoS 2 mosquitto takes no more */
	Plant				  plant(atoi(a[3]));
	char				  json[512], topic[300];

	for (long i = 0; i < records; i++)
	{
		Reading r = plant.reading(START + SPAN * i / records);

		snprintf(topic, sizeof topic, "%s/%d", a[1], r.device % 20);
		link.publish(topic, {json, put_json(json, r, 0)}, qos);
		while (link.in_flight() >= most)
		{
			link.flush();
			link.take(1000, [](std::string_view) {});
		}
	}
	link.flush();
	while (link.in_flight() > 0)
		link.take(1000, [](std::string_view) {});
	link.finish();
}

int
main(int argc, char **argv)
{
	std::string what = argc > 1 ? argv[1] : "";

	if (what == "load" && argc == 8)
		load(argv + 2);
	else if (what == "rows" && argc == 4)
		rows(argv + 2);
	else if (what == "flow" && argc == 7)
		flow(argv + 2);
	else if (what == "mqtt" && argc == 6)
		mqtt(argv + 2);
	else if (what == "publish" && argc == 7)
		publish(argv + 2);
	else
		die("usage: generate load BROKERS TOPIC RECORDS DEVICES PARTITIONS SIZE | rows RECORDS DEVICES | flow BROKERS TOPIC RATE DEVICES PARTITIONS | mqtt PORT TOPIC RATE DEVICES | publish PORT TOPIC RECORDS DEVICES QOS");
	return 0;
}
