/*
 * source/kafka/headers.c
 *		A Kafka record's headers.
 */
#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "source/kafka/client.h"

#define HEADERS_MAX 100000 /* of a record; the client's own limit */

uint64
streamext_kafka_headers_bytes(const rd_kafka_message_t *message)
{
	rd_kafka_headers_t *headers;
	const char		   *name;
	const void		   *value;
	size_t				size;
	uint64				sum = 0;

	if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return 0;
	for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
		sum += strlen(name) + size;
	return sum;
}

/* Of a few bytes of a topic compression makes a header that no text can hold. */
const char *
streamext_kafka_headers_refused(const StreamRecord *record, int *sqlstate)
{
	rd_kafka_headers_t *headers;
	rd_kafka_resp_err_t err = rd_kafka_message_headers(record->message, &headers);

	if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR__NOENT)
	{
		*sqlstate = ERRCODE_DATA_EXCEPTION;
		return psprintf("the headers cannot be read, or there are more than %d", HEADERS_MAX);
	}
	if (streamext_kafka_headers_bytes(record->message) <= STREAMEXT_MAX_RECORD)
		return NULL;
	*sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	return psprintf("the headers are larger than %d bytes", STREAMEXT_MAX_RECORD);
}

char *
streamext_kafka_headers(Connector *c, const StreamRecord *record)
{
	rd_kafka_headers_t *headers;
	StringInfoData		json;
	const char		   *name;
	const void		   *value;
	size_t				size;

	if (rd_kafka_message_headers(record->message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return NULL;
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
	{
		if (json.len > 1)
			appendStringInfoString(&json, ", ");
		streamext_connector_header_text(&json, name, strlen(name));
		appendStringInfoString(&json, ": ");
		streamext_connector_header_text(&json, value, size);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}
