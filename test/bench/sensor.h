/*
 * sensor.h
 *		A sensor record, parsed by simdjson as somebody would by hand: known fields, known shapes, no second chances.
 */
#ifndef BENCH_SENSOR_H
#define BENCH_SENSOR_H

#include <simdjson.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "topic.h"

/* Views into the parser's and the record's memory, valid until the next parse. */
struct Sensor
{
	std::string_view device, site, ts;
	double			 temperature, humidity;
};

class SensorParser
{
public:
	/* `with_site` costs a string more. */
	void
	parse(const char *payload, size_t length, Sensor &to, bool with_site = false)
	{
		simdjson::ondemand::document record;

		if (length + simdjson::SIMDJSON_PADDING > padded.size())
			die("record too large");
		memcpy(padded.data(), payload, length);
		if (parser.iterate(padded.data(), length, padded.size()).get(record) || record["device"].get_string().get(to.device) ||
			(with_site && record["site"].get_string().get(to.site)) || record["ts"].get_string().get(to.ts) ||
			record["temperature"].get_double().get(to.temperature) || record["humidity"].get_double().get(to.humidity))
			die("not a sensor record");
	}

private:
	simdjson::ondemand::parser parser;
	std::vector<char>		   padded = std::vector<char>(1 << 20);
};

inline int
digits(const char *s, int n)
{
	int value = 0;

	for (int i = 0; i < n; i++)
		value = value * 10 + (s[i] - '0');
	return value;
}

/* Microseconds since 1970 of YYYY-MM-DDTHH:MM:SS.mmm+00:00; remembers the last minute. */
inline int64_t
microseconds(std::string_view text)
{
	static char	   known[16];
	static int64_t known_minute;
	const char	  *s = text.data();

	if (text.size() < 23)
		die("short time");
	if (memcmp(s, known, 16) != 0)
	{
		int		year = digits(s, 4), month = digits(s + 5, 2), day = digits(s + 8, 2);
		int64_t days;

		/* civil to days, the usual formula with the year starting in March */
		year -= month <= 2;
		days = 365L * year + year / 4 - year / 100 + year / 400 + (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1 - 719468;
		known_minute = days * 86400 + digits(s + 11, 2) * 3600 + digits(s + 14, 2) * 60;
		memcpy(known, s, 16);
	}
	return (known_minute + digits(s + 17, 2)) * 1000000 + digits(s + 20, 3) * 1000;
}

#endif
