/*
 * source/mqtt/properties.c
 *		User properties of MQTT 5 messages. What the functions promise is in source/mqtt/properties.h.
 *
 * A topic in the journal has a size and is read up to its first NUL, which a topic cannot hold; neither can names and values, and
 * where a broker sends one all the same, a name or value ends there. So the journal needs no field for them.
 */
#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "source/connector.h"
#include "source/mqtt/properties.h"

#define MQTT_PROPERTIES_MAX PG_UINT16_MAX /* with the topic; the journal's limit of a topic */

static uint32
properties_put(char *to, const MQTTLenString *from)
{
	size_t size = from->data != NULL ? strnlen(from->data, Max(from->len, 0)) : 0;

	if (to != NULL)
	{
		memcpy(to, from->data != NULL ? from->data : "", size);
		to[size] = '\0';
	}
	return size + 1;
}

/* The bytes that the topic and all properties take; with a buffer they are put there. */
static uint64
properties_pack(char *packed, const char *topic, const MQTTProperties *properties)
{
	uint64 size = strlen(topic) + 1;

	if (packed != NULL)
		memcpy(packed, topic, size);
	for (int i = 0; i < properties->count; i++)
	{
		const MQTTProperty *property = &properties->array[i];

		if (property->identifier != MQTTPROPERTY_CODE_USER_PROPERTY)
			continue;
		size += properties_put(packed != NULL ? packed + size : NULL, &property->value.data);
		size += properties_put(packed != NULL ? packed + size : NULL, &property->value.value);
	}
	return size;
}

char *
streamext_mqtt_properties_pack(const char *topic, const MQTTProperties *properties, uint32 *size)
{
	uint64 bytes = properties_pack(NULL, topic, properties);
	char  *packed;

	if (bytes == strlen(topic) + 1 || bytes - 1 > MQTT_PROPERTIES_MAX)
		return NULL;
	packed = malloc(bytes);
	if (packed == NULL)
		return NULL;
	(void) properties_pack(packed, topic, properties);
	*size = bytes - 1;
	return packed;
}

char *
streamext_mqtt_properties_json(const char *topic, uint32 size)
{
	const char	  *end = topic + size;
	const char	  *p = topic + strlen(topic) + 1;
	StringInfoData json;

	if (p >= end)
		return NULL;
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	while (p <= end)
	{
		const char *name = p;
		const char *value = name + strlen(name) + 1;

		appendStringInfoString(&json, json.len > 1 ? ", " : "");
		streamext_connector_header_text(&json, name, strlen(name));
		appendStringInfoString(&json, ": ");
		streamext_connector_header_text(&json, value, strlen(value));
		p = value + strlen(value) + 1;
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}
