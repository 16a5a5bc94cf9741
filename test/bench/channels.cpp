/*
 * channels.cpp
 *		Senders for the channels HTTP and feed, and what their libraries take alone.
 *
 * channels post PORT PATH TOKEN CONNECTIONS RECORDS PER_REQUEST RATE
 *		POSTs records as NDJSON over keep-alive connections, each with one request at a time, and ends when all are answered 204. RATE: records a
 *		second, for RECORDS / RATE seconds; 0: as fast as it goes.
 * channels receive PORT
 *		Bare libmicrohttpd as the gateway uses it, with its epoll descriptor in a loop of our own: throws bodies away, answers 204.
 * channels firehose PORT RECORDS RATE
 *		Answers each connection, one after the other, with so many lines, and leaves it open.
 * channels read PORT RECORDS
 *		Bare libcurl that counts lines.
 *
 * With a rate there is a record of the device "probe" every 20 ms, whose temperature is the time in seconds since 1970. All but receive and
 * firehose print the seconds they took.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;

static const int DISTINCT = 10000; /* records */
static const int PROBE_MS = 20;

[[noreturn]] static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static double
since(Clock::time_point begin)
{
	return std::chrono::duration<double>(Clock::now() - begin).count();
}

/* ---- records ---- */

static std::string
record(int i)
{
	char text[256];

	snprintf(text, sizeof text,
			 "{\"device\":\"device-%04d\",\"site\":\"site-%02d\",\"ts\":\"2026-01-01T00:%02d:%02d.%03d+00:00\",\"temperature\":%.3f,\"humidity\":%.3f}\n",
			 i % 1000, i % 20, i / 60000 % 60, i / 1000 % 60, i % 1000, i % 240 / 8.0, i % 800 / 8.0);
	return text;
}

static std::string
probe()
{
	char			text[256];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(text, sizeof text,
			 "{\"device\":\"probe\",\"site\":\"probe\",\"ts\":\"2026-01-01T00:00:00.000+00:00\",\"temperature\":%ld.%06ld,\"humidity\":0}\n",
			 (long) now.tv_sec, now.tv_nsec / 1000);
	return text;
}

/* Of n records each, so many that all distinct ones are in them. */
static std::vector<std::string>
blocks(int n)
{
	std::vector<std::string> all;

	for (int at = 0; at < DISTINCT; at += n)
	{
		std::string block;

		for (int i = 0; i < n; i++)
			block += record((at + i) % DISTINCT);
		all.push_back(block);
	}
	return all;
}

class Pace
{
public:
	explicit Pace(double a_rate) : rate(a_rate), begin(Clock::now()) {}
	bool is_due(long sent) const { return rate == 0 || sent < since(begin) * rate; }
	bool
	is_probe_due()
	{
		if (rate == 0 || since(begin) * 1000 < probes * PROBE_MS)
			return false;
		probes++;
		return true;
	}

private:
	double			  rate;
	Clock::time_point begin;
	long			  probes = 1;
};

/* ---- sockets ---- */

static sockaddr_in
loopback(const char *port)
{
	sockaddr_in to = {};

	to.sin_family = AF_INET;
	to.sin_port = htons(atoi(port));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return to;
}

static int
connected(const char *port)
{
	sockaddr_in to = loopback(port);
	int			fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(fd, (sockaddr *) &to, sizeof to) != 0)
		die("connect");
	return fd;
}

static int
listening(const char *port)
{
	sockaddr_in to = loopback(port);
	int			fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (sockaddr *) &to, sizeof to) != 0 || listen(fd, 100) != 0)
		die("listen");
	return fd;
}

static void
send_all(int fd, const char *data, size_t size)
{
	while (size > 0)
	{
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

		if (n <= 0)
			die("send");
		data += n;
		size -= n;
	}
}

/* ---- post ---- */

static std::string
request(const char *path, const char *token, const std::string &body)
{
	return std::string("POST ") + path + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token +
		   "\r\nContent-Type: application/x-ndjson\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

static void
take_answer(int fd)
{
	char	answer[4096];
	ssize_t n = recv(fd, answer, sizeof answer, 0);

	if (n < 12 || memcmp(answer, "HTTP/1.1 204", 12) != 0)
	{
		fprintf(stderr, "%.*s\n", (int) (n > 0 ? n : 0), answer);
		die("answer");
	}
}

static void
post(char **argv)
{
	int						 n = atoi(argv[3]), per = atoi(argv[5]), epoll = epoll_create1(0);
	long					 records = atol(argv[4]), sent = 0, answered = 0;
	double					 rate = atof(argv[6]);
	std::vector<std::string> requests;
	std::vector<int>		 idle;
	std::vector<epoll_event> events(n);

	for (auto &body : blocks(per))
		requests.push_back(request(argv[1], argv[2], body));
	for (int i = 0; i < n; i++)
	{
		epoll_event event = {};

		event.events = EPOLLIN;
		event.data.fd = connected(argv[0]);
		epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
		idle.push_back(event.data.fd);
	}
	auto begin = Clock::now();
	Pace pace(rate);
	while (answered < records)
	{
		while (!idle.empty() && sent < records && pace.is_due(sent))
		{
			if (pace.is_probe_due())
			{
				std::string text = request(argv[1], argv[2], probe());

				send_all(idle.back(), text.data(), text.size());
				answered -= per; /* it is not one of them */
			}
			else
			{
				const std::string &text = requests[sent / per % requests.size()];

				send_all(idle.back(), text.data(), text.size());
				sent += per;
			}
			idle.pop_back();
		}
		int ready = epoll_wait(epoll, events.data(), n, rate > 0 ? 1 : -1);
		for (int i = 0; i < ready; i++)
		{
			take_answer(events[i].data.fd);
			idle.push_back(events[i].data.fd);
			answered += per;
		}
	}
	printf("%.6f\n", since(begin));
}

/* ---- receive ---- */

static MHD_Result
on_request(void *cls, MHD_Connection *connection, const char *, const char *, const char *, const char *, size_t *size, void **context)
{
	if (*context == nullptr)
	{
		*context = cls;
		return MHD_YES;
	}
	if (*size > 0)
	{
		*size = 0;
		return MHD_YES;
	}
	return MHD_queue_response(connection, MHD_HTTP_NO_CONTENT, (MHD_Response *) cls);
}

static void
receive(char **argv)
{
	MHD_Response *response = MHD_create_response_from_buffer(0, (void *) "", MHD_RESPMEM_PERSISTENT);
	MHD_Daemon	 *daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, nullptr, nullptr, on_request, response, MHD_OPTION_LISTEN_SOCKET,
											listening(argv[0]), MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
	int			  fd = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, epoll = epoll_create1(0);
	epoll_event	  event = {};

	event.events = EPOLLIN;
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	for (;;)
	{
		MHD_UNSIGNED_LONG_LONG timeout;
		bool				   has = MHD_get_timeout(daemon, &timeout) == MHD_YES;

		epoll_wait(epoll, &event, 1, has ? (int) timeout : -1);
		MHD_run(daemon);
	}
}

/* ---- firehose ---- */

static void
pour(int fd, long records, double rate)
{
	static const int				per = 500;
	static std::vector<std::string> all = blocks(per), few = blocks(20);
	char							head[8192];
	const char *answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n";

	if (recv(fd, head, sizeof head, 0) <= 0)
		return;
	send_all(fd, answer, strlen(answer));
	Pace pace(rate);
	for (long sent = 0; sent < records;)
	{
		if (pace.is_probe_due())
		{
			std::string text = probe();

			send_all(fd, text.data(), text.size());
		}
		if (!pace.is_due(sent))
		{
			std::this_thread::sleep_for(std::chrono::microseconds(200));
			continue;
		}
		const std::string &text = rate > 0 ? few[sent / 20 % few.size()] : all[sent / per % all.size()];

		send_all(fd, text.data(), text.size());
		sent += rate > 0 ? 20 : per;
	}
	while (recv(fd, head, sizeof head, 0) > 0)
		;
}

static void
firehose(char **argv)
{
	int listener = listening(argv[0]), fd, one = 1;

	while ((fd = accept(listener, nullptr, nullptr)) >= 0)
	{
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		pour(fd, atol(argv[1]), atof(argv[2]));
		close(fd);
	}
}

/* ---- read ---- */

static long wanted, lines;

static size_t
on_data(char *data, size_t, size_t size, void *)
{
	const char *end = data + size;

	for (const char *p = data; (p = (const char *) memchr(p, '\n', end - p)) != nullptr; p++)
		lines++;
	return lines < wanted ? size : 0;
}

static void
read_feed(char **argv)
{
	CURL	   *curl = curl_easy_init();
	std::string url = std::string("http://127.0.0.1:") + argv[0] + "/";
	auto		begin = Clock::now();

	wanted = atol(argv[1]);
	curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
	curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_perform(curl);
	if (lines < wanted)
		die("feed");
	printf("%.6f\n", since(begin));
}

int
main(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		int			arguments;
		void (*run)(char **);
	} commands[] = { { "post", 7, post }, { "receive", 1, receive }, { "firehose", 3, firehose }, { "read", 2, read_feed } };

	for (auto &command : commands)
		if (argc == command.arguments + 2 && strcmp(argv[1], command.name) == 0)
		{
			command.run(argv + 2);
			return 0;
		}
	fprintf(stderr, "see the file's head\n");
	return 1;
}
