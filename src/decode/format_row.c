/*
 * decode/format_row.c
 *		Payloads that are rows as INSERT made them (decode/row.h).
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "miscadmin.h"

#include "base/transaction.h"
#include "decode/column.h"
#include "decode/row.h"

typedef struct RowStep
{
	Decoder			   *decoder;
	const StreamRecord *record;
	void			   *tuple;
	Datum			   *values;
	bool			   *nulls;
	int				   *sqlstate;
	const char		   *reason;
} RowStep;

static void *
row_open(Decoder *decoder)
{
	return streamext_row_decoder(decoder->config);
}

/* A StreamextStep: a row of another layout. NULLs are shown to domains whose columns were not there, or had another type, when it was inserted. */
static void
row_cast_step(void *arg)
{
	RowStep *step = arg;
	Decoder *decoder = step->decoder;

	step->reason =
		streamext_row_decode(decoder->format, step->record, step->tuple, step->values, step->nulls, step->sqlstate);
	if (step->reason != NULL)
		return;
	for (int i = 0; i < decoder->npayload; i++)
	{
		int			   att = decoder->payload[i];
		DecoderColumn *col = &decoder->columns[att];

		if (step->nulls[att] && col->input != NULL && streamext_value_checks_null(col->input))
			streamext_value_check_null(col->input);
	}
}

/* Some value must be cast: what that raises is a reason to reject. */
static const char *
row_cast(RowStep *step)
{
	ErrorData *error = streamext_try(row_cast_step, step);
	ErrorBlame blame;

	CHECK_FOR_INTERRUPTS();
	if (error == NULL)
		return step->reason;
	blame = streamext_error_blame(error);
	if (blame == BLAME_GENERAL || (blame == BLAME_INTERNAL && !step->decoder->batch->again))
		ReThrowError(error);
	*step->sqlstate = error->sqlerrcode;
	return error->message;
}

/* The tuple is copied: payloads are not aligned and end with the poll. */
static const char *
row_payload(Decoder *decoder, const StreamRecord *record, Datum *values, bool *nulls, int *sqlstate)
{
	void *tuple = decode_alloc(decoder, record->payload_size);

	streamext_row_decoder_refresh(decoder->format);
	if (unlikely(streamext_row_may_raise(decoder->format, record)))
	{
		RowStep step = { decoder, record, tuple, values, nulls, sqlstate, NULL };

		return row_cast(&step);
	}
	return streamext_row_decode(decoder->format, record, tuple, values, nulls, sqlstate);
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
	.open = row_open,
	.parse = row_parse,
};
