/*
 * sources: source/mqtt/topic source/mqtt/properties source/connector base/clip
 *
 * Topics against filters, as the standard's words have it; user properties into the journal's form and from there to JSON.
 */
#include "fuzz.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "source/mqtt/properties.h"
#include "source/mqtt/topic.h"

/* A filter's level is # (all the rest), + (any one level) or itself. */
static bool
mqtt_expected(const char *filter, const char *topic)
{
	size_t level = strcspn(filter, "/"), topic_level = strcspn(topic, "/");

	if (level == 1 && filter[0] == '#')
		return true;
	if (!(level == 1 && filter[0] == '+') && (level != topic_level || memcmp(filter, topic, level) != 0))
		return false;
	filter += level;
	topic += topic_level;
	if (*topic == '\0')
		return *filter == '\0' || strcmp(filter, "/#") == 0;
	return *filter != '\0' && mqtt_expected(filter + 1, topic + 1);
}

/* Wildcards stand alone in their level, # is the last. */
static bool
mqtt_is_filter(const char *filter)
{
	for (const char *p = filter; *p != '\0'; p++)
		if (*p == '#' || *p == '+')
			if ((p > filter && p[-1] != '/') || (p[1] != '\0' && (*p == '#' || p[1] != '/')))
				return false;
	return *filter != '\0';
}

static void
mqtt_properties(FuzzInput *in, const char *topic)
{
	MQTTProperty   list[8];
	MQTTProperties properties = { .count = (int) fuzz_number(in, lengthof(list) + 1), .array = list };
	uint32		   size;
	char		  *packed, *json;

	for (int i = 0; i < properties.count; i++)
	{
		bool nothing;

		list[i].identifier = fuzz_number(in, 4) == 0 ? MQTTPROPERTY_CODE_CONTENT_TYPE : MQTTPROPERTY_CODE_USER_PROPERTY;
		nothing = fuzz_number(in, 16) == 0;
		list[i].value.data.len = fuzz_size(in, 300);
		list[i].value.data.data = nothing ? NULL : fuzz_copy(in, list[i].value.data.len);
		list[i].value.value.len = fuzz_size(in, 300);
		list[i].value.value.data = fuzz_copy(in, list[i].value.value.len);
	}
	packed = streamext_mqtt_properties_pack(topic, &properties, &size);
	if (packed == NULL)
		return;
	REQUIRE(size <= PG_UINT16_MAX && packed[size] == '\0');
	json = streamext_mqtt_properties_json(packed, size);
	REQUIRE(json != NULL && json[0] == '{' && json[strlen(json) - 1] == '}');
	free(packed);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };
	char	 *filter, *topic, *marker;

	server_start();
	filter = fuzz_text(&in, 200);
	topic = fuzz_text(&in, 200);
	if (mqtt_is_filter(filter) && topic[0] != '\0')
		REQUIRE(streamext_mqtt_matches(filter, topic) ==
				((topic[0] != '$' || (filter[0] != '#' && filter[0] != '+')) && mqtt_expected(filter, topic)));
	else
		(void) streamext_mqtt_matches(filter, topic);
	(void) streamext_mqtt_plain_filter(filter);
	marker = streamext_mqtt_marker_topic(topic);
	REQUIRE(strpbrk(marker, "+#") == NULL);
	mqtt_properties(&in, topic);
	server_reset();
	return 0;
}

/* ---- the server's, for source/connector.c ---- */

extern void	  escape_json(StringInfo buf, const char *text);
extern uint64 hex_encode(const char *from, size_t size, char *to);
extern bool	  pg_verify_mbstr(int encoding, const char *text, int size, bool no_error);

int
GetDatabaseEncoding(void)
{
	return PG_UTF8;
}

bool
pg_verify_mbstr(int encoding, const char *text, int size, bool no_error)
{
	return pg_encoding_verifymbstr(encoding, text, size) == size;
}

void
escape_json(StringInfo buf, const char *text)
{
	appendStringInfoString(buf, text);
}

uint64
hex_encode(const char *from, size_t size, char *to)
{
	for (size_t i = 0; i < size; i++)
		sprintf(to + 2 * i, "%02x", (unsigned char) from[i]);
	return size * 2;
}
