/*
 * decode/format_raw.c
 *		Payloads that are one column's value: as text by its type's input function, or raw.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"

#include "decode/column.h"
#include "decode/write.h"

/* pg_dump makes the columns first and says afterwards which are metadata: until then each takes the payload. */
static const char *
raw_parse(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	Batch	   *batch = decoder->batch;
	const char *reason = NULL;

	for (int i = 0; i < decoder->npayload && reason == NULL; i++)
	{
		int			   att = decoder->payload[i];
		DecoderColumn *col = &decoder->columns[att];

		batch->nulls[att][row] = false;
		reason = streamext_decode_bytes(decoder, col, record->payload, record->payload_size, row,
										&batch->values[att][row], sqlstate);
		if (unlikely(reason != NULL) && decode_pass_over(decoder, i, row, column, sqlstate))
			reason = NULL;
	}
	return reason;
}

static char *
raw_text_of(const StreamConfig *config, const StreamColumn *column, const StreamRecord *record)
{
	return pnstrdup(record->payload, record->payload_size);
}

const FormatOps streamext_text_format = {
	.name = "text",
	.one_column = true,
	.parse = raw_parse,
	.text_of = raw_text_of,
	.write = streamext_write_text,
};

const FormatOps streamext_raw_format = {
	.name = "raw",
	.one_column = true,
	.column_type = BYTEAOID,
	.parse = raw_parse,
	.write = streamext_write_raw,
};
