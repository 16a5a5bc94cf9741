/*
 * fresh.cpp
 *		From a record handed to the client library until it is seen, at most 50 times a second, while a flow from elsewhere goes on.
 *
 * fresh kafka BROKERS TOPIC SECONDS [CONNINFO]
 * fresh mqtt PORT TOPIC SECONDS [CONNINFO]
 *
 * With CONNINFO it is seen when a SELECT of the view by_device shows it, which is asked once a millisecond; the clock stops when the
 * answer is here. Without, when a bare consumer of the whole flow meets it: what broker and client library take by themselves.
 * Prints one line of JSON: latencies in milliseconds, ascending, and how many records a second a bare consumer took. A program of its own and not Python, because it shares two cores with
 * what it measures.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "mqtt.h"
#include "topic.h"

static constexpr double GIVE_UP = 10;	  /* seconds */
static constexpr double PAUSE = 0.02;	  /* seconds between two probes, at random around it */
static constexpr int	POLL_US = 1000;

static const std::string PREFIX = "{\"device\":\"probe\",";

static std::string
record(long number)
{
	char   ts[32];
	time_t now = time(nullptr);
	tm	   broken;

	gmtime_r(&now, &broken);
	strftime(ts, sizeof ts, "%Y-%m-%dT%H:%M:%S+00:00", &broken);
	return PREFIX + "\"site\":\"probe\",\"ts\":\"" + ts + "\",\"temperature\":" + std::to_string(number) + ",\"humidity\":0}";
}

/* The number of a probe, 0 for other records. */
static long
number_of(std::string_view payload)
{
	size_t at;

	if (payload.substr(0, PREFIX.size()) != PREFIX || (at = payload.find("\"temperature\":")) == payload.npos)
		return 0;
	return atol(payload.data() + at + 14);
}

/* Sends records, and meets them again. */
class Source
{
public:
	virtual ~Source() = default;
	virtual void send(const std::string &payload) = 0;
	virtual void follow() = 0;
	/* Waits up to a millisecond for something to arrive; the greatest number met so far. */
	virtual long met() = 0;

	long taken = 0; /* by met() */

protected:
	long last = 0;

	void
	take(std::string_view payload)
	{
		taken++;
		last = std::max(last, number_of(payload));
	}
};

class KafkaSource : public Source
{
public:
	KafkaSource(const char *brokers, const char *name) : brokers(brokers), name(name)
	{
		client = open_client(RD_KAFKA_PRODUCER, {{"bootstrap.servers", brokers}, {"linger.ms", "0"}});
		topic = rd_kafka_topic_new(client, name, nullptr);
	}

	~KafkaSource() override
	{
		rd_kafka_flush(client, 1000);
		rd_kafka_topic_destroy(topic);
		rd_kafka_destroy(client);
	}

	void
	send(const std::string &payload) override
	{
		if (rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, const_cast<char *>(payload.data()), payload.size(), nullptr, 0, nullptr))
			die("produce");
		rd_kafka_poll(client, 0);
	}

	void
	follow() override
	{
		consumer = std::make_unique<Topic>(brokers, name);
		event = eventfd(0, EFD_NONBLOCK);
		consumer->follow(event);
	}

	long
	met() override
	{
		pollfd	 ready = {event, POLLIN, 0};
		uint64_t count;

		if (poll(&ready, 1, 1) > 0 && read(event, &count, sizeof count) < 0)
			return last;
		while (consumer->take([this](const char *payload, size_t length) { Source::take({payload, length}); }))
			;
		return last;
	}

private:
	const char			  *brokers, *name;
	rd_kafka_t			  *client;
	rd_kafka_topic_t	  *topic;
	std::unique_ptr<Topic> consumer;
	int					   event = -1;
};

class MqttSource : public Source
{
public:
	MqttSource(int port, const char *topic) : port(port), topic(topic), sender(port, "fresh-sender")
	{
	}

	void
	send(const std::string &payload) override
	{
		sender.take(0, [](std::string_view) {});
		sender.publish(topic + "/probe", payload, 1);
		sender.flush();
	}

	void
	follow() override
	{
		consumer = std::make_unique<MqttLink>(port, "fresh-consumer");
		consumer->subscribe(topic + "/#", 1);
	}

	long
	met() override
	{
		consumer->take(1, [this](std::string_view payload) { Source::take(payload); });
		return last;
	}

private:
	int						  port;
	std::string				  topic;
	MqttLink				  sender;
	std::unique_ptr<MqttLink> consumer;
};

/* The number that the view shows. */
class View
{
public:
	explicit View(const char *conninfo) : connection(PQconnectdb(conninfo))
	{
		PGresult *result;

		if (PQstatus(connection) != CONNECTION_OK)
			die("connect", PQerrorMessage(connection));
		result = PQprepare(connection, "s", "SELECT peak::bigint FROM by_device WHERE device = 'probe'", 0, nullptr);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			die("prepare", PQerrorMessage(connection));
		PQclear(result);
	}

	long
	shows()
	{
		PGresult *result = PQexecPrepared(connection, "s", 0, nullptr, nullptr, nullptr, 0);
		long	  number;

		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			die("select", PQerrorMessage(connection));
		number = PQntuples(result) > 0 ? atol(PQgetvalue(result, 0, 0)) : 0;
		PQclear(result);
		return number;
	}

private:
	PGconn *connection;
};

int
main(int argc, char **argv)
{
	if (argc != 5 && argc != 6)
		die("usage: fresh kafka|mqtt BROKERS|PORT TOPIC SECONDS [CONNINFO]");

	std::unique_ptr<Source> source;
	std::unique_ptr<View>	view;
	std::vector<double>		found;
	std::mt19937			random(1);
	long					number = 0;

	if (strcmp(argv[1], "kafka") == 0)
		source = std::make_unique<KafkaSource>(argv[2], argv[3]);
	else
		source = std::make_unique<MqttSource>(atoi(argv[2]), argv[3]);
	if (argc == 6)
	{
		view = std::make_unique<View>(argv[5]);
		number = view->shows();
	}
	else
		source->follow();

	/* The first ones may be sent before the consumer is where it should be, and are not counted. */
	bool	  warm = false;
	Stopwatch total;

	while (!warm || total.seconds() < atof(argv[4]))
	{
		Stopwatch watch;
		double	  pause = std::uniform_real_distribution<>(0, 2 * PAUSE)(random);
		long	  seen;

		source->send(record(++number));
		while ((seen = view ? view->shows() : source->met()) < number && watch.seconds() < (warm ? GIVE_UP : 0.5))
			if (view)
				std::this_thread::sleep_for(std::chrono::microseconds(POLL_US));
		if (!warm)
		{
			warm = seen == number;
			if (total.seconds() > 2 * GIVE_UP)
				die("no record is visible");
			if (warm)
			{
				total = Stopwatch();
				source->taken = 0;
			}
			continue;
		}

		double took = watch.seconds();

		found.push_back(took * 1000);
		if (took >= GIVE_UP)
			break; /* the flow is more than what is measured can take */
		/* the bare consumer goes on taking the flow */
		for (Stopwatch rest; rest.seconds() < pause;)
			if (view)
				std::this_thread::sleep_for(std::chrono::duration<double>(pause));
			else
				(void) source->met();
	}

	double rate = source->taken / total.seconds();

	std::sort(found.begin(), found.end());
	printf("{\"rate\": %.1f, \"latencies\": [", rate);
	for (size_t i = 0; i < found.size(); i++)
		printf("%s%.3f", i > 0 ? ", " : "", found[i]);
	printf("]}\n");
	return 0;
}
