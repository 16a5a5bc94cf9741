/*
 * mqtt.h
 *		As much of MQTT 3.1.1 as the benchmarks need: a client that costs little more than its system calls.
 */
#ifndef BENCH_MQTT_H
#define BENCH_MQTT_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "topic.h"

class MqttLink
{
public:
	MqttLink(int port, const std::string &client_id)
	{
		sockaddr_in address = {};
		int			one = 1;

		address.sin_family = AF_INET;
		address.sin_port = htons(static_cast<uint16_t>(port));
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof address))
			die("cannot connect to mosquitto");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		/* a clean session, no keep-alive */
		packet(0x10, std::string("\0\4MQTT\4\2\0\0", 10) + text(client_id));
		flush();
		expect(0x20);
	}

	~MqttLink()
	{
		close(fd);
	}

	void
	subscribe(const std::string &filter, int qos)
	{
		packet(0x82, std::string("\0\1", 2) + text(filter) + static_cast<char>(qos));
		flush();
		expect(0x90);
	}

	/* Until flush() it may stay here. */
	void
	publish(std::string_view topic, std::string_view payload, int qos)
	{
		std::string head;

		head += static_cast<char>(topic.size() >> 8);
		head += static_cast<char>(topic.size());
		head += topic;
		if (qos > 0)
		{
			next_id = static_cast<uint16_t>(next_id == 65535 ? 1 : next_id + 1);
			head += static_cast<char>(next_id >> 8);
			head += static_cast<char>(next_id);
			unfinished++;
		}
		packet(static_cast<char>(0x30 | qos << 1), head, payload);
		if (out.size() > 60000)
			flush();
	}

	void
	flush()
	{
		for (size_t sent = 0; sent < out.size();)
		{
			ssize_t n = send(fd, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);

			if (n <= 0)
				die("mosquitto ended the connection");
			sent += static_cast<size_t>(n);
		}
		out.clear();
	}

	/* Returns when the broker has taken everything. */
	void
	finish()
	{
		packet(static_cast<char>(0xc0), {});
		flush();
		expect(0xd0);
	}

	/* Messages of QoS 1 and 2 that the broker has not finished with. */
	long
	in_flight() const
	{
		return unfinished;
	}

	/* Takes what has arrived, waiting up to `ms` for something; answers what QoS asks for, and calls each(payload) for messages. */
	template <typename Each>
	void
	take(int ms, Each each)
	{
		pollfd ready = {fd, POLLIN, 0};

		if (poll(&ready, 1, ms) <= 0)
			return;

		size_t	had = in.size();
		ssize_t n;

		in.resize(had + (1 << 16));
		n = recv(fd, in.data() + had, 1 << 16, 0);
		if (n <= 0)
			die("mosquitto ended the connection");
		in.resize(had + static_cast<size_t>(n));

		size_t at = 0, length, start;

		while (complete(at, start, length))
		{
			packet_in(static_cast<unsigned char>(in[at]), in.data() + start, length, each);
			at = start + length;
		}
		in.erase(in.begin(), in.begin() + static_cast<long>(at));
		flush();
	}

private:
	int				  fd;
	std::string		  out;
	std::vector<char> in;
	uint16_t		  next_id = 0;
	long			  unfinished = 0;

	static std::string
	text(const std::string &value)
	{
		return std::string(1, static_cast<char>(value.size() >> 8)) + static_cast<char>(value.size()) + value;
	}

	void
	packet(char type, std::string_view head, std::string_view rest = {})
	{
		size_t length = head.size() + rest.size();

		out += type;
		do
		{
			out += static_cast<char>((length & 127) | (length > 127 ? 128 : 0));
			length >>= 7;
		} while (length > 0);
		out += head;
		out += rest;
	}

	/* Whether a packet is there whole at `at`: where its contents start, and their length. */
	bool
	complete(size_t at, size_t &start, size_t &length) const
	{
		length = 0;
		for (size_t i = at + 1, shift = 0; i < in.size(); i++, shift += 7)
		{
			length |= static_cast<size_t>(in[i] & 127) << shift;
			if (!(in[i] & 128))
			{
				start = i + 1;
				return start + length <= in.size();
			}
		}
		return false;
	}

	template <typename Each>
	void
	packet_in(unsigned type, const char *contents, size_t length, Each each)
	{
		std::string_view id(contents, 2);

		switch (type >> 4)
		{
			case 3:
				{
					int	   qos = type >> 1 & 3;
					size_t topic = static_cast<size_t>(static_cast<unsigned char>(contents[0]) << 8 | static_cast<unsigned char>(contents[1]));
					size_t head = 2 + topic + (qos > 0 ? 2 : 0);

					each(std::string_view(contents + head, length - head));
					if (qos > 0)
						packet(static_cast<char>(qos == 1 ? 0x40 : 0x50), std::string_view(contents + 2 + topic, 2));
					break;
				}
			case 4:
			case 7:
				unfinished--;
				break;
			case 5:
				packet(0x62, id);
				break;
			case 6:
				packet(0x70, id);
				break;
			default:
				break;
		}
	}

	void
	expect(unsigned type)
	{
		size_t start, length;

		while (!complete(0, start, length))
		{
			char	bytes[256];
			ssize_t n = recv(fd, bytes, sizeof bytes, 0);

			if (n <= 0)
				die("mosquitto ended the connection");
			in.insert(in.end(), bytes, bytes + n);
		}
		if (static_cast<unsigned char>(in[0]) != type || (length > 0 && (in[start + length - 1] & 0x80)))
			die("mosquitto refused");
		in.erase(in.begin(), in.begin() + static_cast<long>(start + length));
	}
};

#endif
