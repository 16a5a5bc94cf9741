/*
 * decode/format_row.c
 *		Payloads that are rows as INSERT made them.
 */
#include "base/streamext.h"

#include "access/htup_details.h"

#include "decode/column.h"

/* A row as INSERT made it. The tuple is copied: payloads are not aligned and end with the poll. */
static const char *
row_payload(Decoder *decoder, const StreamRecord *record, Datum *values, bool *nulls, int *sqlstate)
{
	MinimalTuple  tuple;
	HeapTupleData htup;

	*sqlstate = ERRCODE_DATATYPE_MISMATCH;
	if (record->row_type_hash != decoder->config->row_type_hash)
		return "the row was inserted before the stream's columns were changed";
	*sqlstate = ERRCODE_DATA_CORRUPTED;
	if (record->payload_size < SizeofMinimalTupleHeader)
		return "the row is cut off";
	tuple = decode_alloc(decoder, record->payload_size);
	memcpy(tuple, record->payload, record->payload_size);
	if (tuple->t_len != record->payload_size)
		return "the row is cut off";
	htup.t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
	htup.t_data = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
	htup.t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&htup.t_self);
	heap_deform_tuple(&htup, decoder->config->desc, values, nulls);
	return NULL;
}

static const char *
row_parse(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	Batch	   *batch = decoder->batch;
	Datum		values[MaxTupleAttributeNumber];
	bool		nulls[MaxTupleAttributeNumber];
	const char *reason = row_payload(decoder, record, values, nulls, sqlstate);

	if (reason != NULL)
		return reason;
	for (int i = 0; i < decoder->npayload; i++)
	{
		int att = decoder->payload[i];

		batch->values[att][row] = values[att];
		batch->nulls[att][row] = nulls[att];
	}
	return NULL;
}

const FormatOps streamext_row_format = {
	.name = "row",
	.rows = true,
	.parse = row_parse,
};
