/*-------------------------------------------------------------------------
 *
 * durable/letter_record.c
 *		The column `record` of streamext_internal.dead_letter: what makes a letter a record again.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "base/layout.h"
#include "durable/letter_record.h"
#include "durable/letters.h"
#include "source/connector.h"

/*
 * The column `record`: what the table's other columns do not say. This head (32 bytes, as the machine has it), the key, the headers, and of a
 * row, whose payload is shown as JSON, the row and its layout (base/layout.h). It is valid if and only if its length is the sum of these. `layout` is
 * LETTER_LAYOUT and the layout's size; 0: not of a row; else, by a version before 1.1, a 32-bit hash of the row's columns' types.
 */
#define LETTER_LAYOUT (UINT64CONST(1) << 63)

typedef enum LetterKey
{
	LETTER_NO_KEY,
	LETTER_KEY,
	LETTER_OWN_KEY /* what its connector keeps there, nobody's to read */
} LetterKey;

typedef struct LetterRecord
{
	TimestampTz timestamp;
	uint64		layout;
	uint32		key_size;
	uint32		headers_size;
	uint32		row_size;
	uint8		qos;
	uint8		retained; /* true or false, as has_headers; stored bytes may be any */
	uint8		key;	  /* LetterKey */
	uint8		has_headers;
} LetterRecord;

/* Headers are what may have crashed the worker: it has not the memory for a client's copy of so many. */
static bool
letter_is_poison(const Batch *batch, const StreamRecord *record)
{
	ListCell *lc;

	foreach (lc, batch->set_aside)
		if (record == &batch->records[((RejectedRecord *) lfirst(lc))->record])
			return true;
	return false;
}

bytea *
streamext_letter_record(const Batch *batch, StreamRecord *record, bool *whole)
{
	Connector	*connector = batch->connector;
	const char	*headers = record->headers;
	const char	*row = batch->config->format->rows ? record->payload : NULL;
	LetterRecord head;
	Size		 size = sizeof(head);
	bytea		*result;
	char		*to;
	const char	*refused = NULL; /* "": there may be headers, which are not looked at */
	int			 sqlstate;

	/* no column takes them, now */
	if (headers == NULL && connector != NULL && connector->ops->headers != NULL)
	{
		if (letter_is_poison(batch, record))
			refused = "";
		else
			headers = streamext_connector_headers(connector->ops, connector, record, &refused, &sqlstate);
	}
	memset(&head, 0, sizeof(head));
	head.timestamp = record->timestamp;
	head.layout = record->layout != NULL ? LETTER_LAYOUT | record->layout->size : record->row_type_hash;
	head.qos = record->qos;
	head.retained = record->retained;
	if (record->key != NULL && record->key_size <= DEAD_LETTER_PAYLOAD)
		head.key = streamext_connector_has_keys(batch->config->connector) ? LETTER_KEY : LETTER_OWN_KEY;
	head.key_size = head.key != LETTER_NO_KEY ? record->key_size : 0;
	head.has_headers = headers != NULL && strlen(headers) <= DEAD_LETTER_PAYLOAD;
	head.headers_size = head.has_headers ? strlen(headers) : 0;
	head.row_size = row != NULL && record->payload_size <= DEAD_LETTER_PAYLOAD ? record->payload_size : 0;
	*whole = (record->payload == NULL || record->payload_size <= DEAD_LETTER_PAYLOAD) &&
			 (head.key != LETTER_NO_KEY) == (record->key != NULL) && head.has_headers == (headers != NULL) &&
			 refused == NULL;

	size += head.key_size + head.headers_size + head.row_size + (record->layout != NULL ? record->layout->size : 0);
	result = palloc(VARHDRSZ + size);
	SET_VARSIZE(result, VARHDRSZ + size);
	to = VARDATA(result);
	memcpy(to, &head, sizeof(head));
	to += sizeof(head);
	if (head.key_size > 0)
		memcpy(to, record->key, head.key_size);
	to += head.key_size;
	if (head.headers_size > 0)
		memcpy(to, headers, head.headers_size);
	if (headers != NULL && headers != record->headers)
		pfree(unconstify(char *, headers)); /* of a statement's letters they may be much more than is kept */
	to += head.headers_size;
	if (head.row_size > 0)
		memcpy(to, row, head.row_size);
	to += head.row_size;
	if (record->layout != NULL)
		memcpy(to, record->layout, record->layout->size);
	return result;
}

bool
streamext_dead_letter_record(StreamRecord *record, const FormatOps *format, const bytea *payload, const bytea *rest)
{
	const char	*from = VARDATA_ANY(rest);
	LetterRecord head;
	Size		 layout_size;

	if (VARSIZE_ANY_EXHDR(rest) < sizeof(head))
		return false;
	memcpy(&head, from, sizeof(head));
	layout_size = (head.layout & LETTER_LAYOUT) != 0 ? head.layout & ~LETTER_LAYOUT : 0;
	if (layout_size > MaxAllocSize || VARSIZE_ANY_EXHDR(rest) != sizeof(head) + (Size) head.key_size +
																	 head.headers_size + head.row_size + layout_size)
		return false;
	from += sizeof(head);
	record->timestamp = head.timestamp;
	record->row_type_hash = layout_size == 0 ? (uint32) head.layout : 0;
	record->layout = NULL;
	record->qos = head.qos;
	record->retained = head.retained != 0;
	record->key = head.key != LETTER_NO_KEY ? from : NULL;
	record->key_size = head.key_size;
	from += head.key_size;
	record->headers = head.has_headers ? pnstrdup(from, head.headers_size) : NULL;
	from += head.headers_size;
	if (format->rows)
	{
		record->payload = from;
		record->payload_size = head.row_size;
		if (layout_size > 0)
		{
			record->layout =
				streamext_layout_intern(memcpy(palloc(layout_size), from + head.row_size, layout_size), layout_size);
			if (record->layout == NULL)
				return false;
		}
	}
	else if (payload != NULL)
	{
		record->payload = VARDATA_ANY(payload);
		record->payload_size = VARSIZE_ANY_EXHDR(payload);
	}
	return true;
}

/* Of a letter's record: the key that records of the connector have, or the headers. False: it has none, or none that was small enough to be kept. */
static bool
letter_part(const bytea *rest, bool headers, const char **part, Size *size)
{
	LetterRecord head;

	if (VARSIZE_ANY_EXHDR(rest) < sizeof(head))
		return false;
	memcpy(&head, VARDATA_ANY(rest), sizeof(head));
	if (VARSIZE_ANY_EXHDR(rest) < sizeof(head) + (Size) head.key_size + head.headers_size)
		return false;
	*part = VARDATA_ANY(rest) + sizeof(head) + (headers ? head.key_size : 0);
	*size = headers ? head.headers_size : head.key_size;
	return headers ? head.has_headers != 0 : head.key == LETTER_KEY;
}

PG_FUNCTION_INFO_V1(streamext_letter_key);
PG_FUNCTION_INFO_V1(streamext_letter_headers);

Datum
streamext_letter_key(PG_FUNCTION_ARGS)
{
	const char *part;
	Size		size;

	if (!letter_part(PG_GETARG_BYTEA_PP(0), false, &part, &size))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PointerGetDatum(cstring_to_text_with_len(part, size))); /* bytea has the same layout */
}

/* Text that the connector has made, of type json. */
Datum
streamext_letter_headers(PG_FUNCTION_ARGS)
{
	const char *part;
	Size		size;

	if (!letter_part(PG_GETARG_BYTEA_PP(0), true, &part, &size))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall1(json_in, CStringGetDatum(pnstrdup(part, size))));
}
