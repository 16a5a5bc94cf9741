/*
 * decode/write.c
 *		Rows as payloads. What the functions promise is in decode/write.h.
 *
 * Values are written as PostgreSQL writes them: JSON as row_to_json does.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "decode/format.h"
#include "base/path.h"
#include "decode/write.h"

pg_noreturn static void
write_refuse_path(const StreamColumn *column)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot write column \"%s\", whose value is within another", column->name),
					errdetail("Its path is %s.", column->path),
					errhint("Rows are written with paths of one key: insert by a foreign table of its own.")));
}

/* The field's name in the payload. */
static char *
write_name(const StreamColumn *column, bool paths)
{
	PathReader reader;
	char	  *key;

	if (column->path == NULL || !paths)
		return column->name;
	key = palloc0(strlen(column->path) + 1);
	streamext_path_begin(&reader, column->path);
	if (streamext_path_next(&reader, key) != PATH_KEY)
		write_refuse_path(column);
	key[reader.size] = '\0';
	if (streamext_path_next(&reader, palloc(strlen(column->path) + 1)) != PATH_END || strlen(key) >= NAMEDATALEN)
		write_refuse_path(column);
	return key;
}

/* Whether the column is a part of the payload. */
static bool
write_has(const StreamColumn *column)
{
	return !column->dropped && column->metadata == METADATA_NONE;
}

PayloadWriter *
streamext_write_begin(const StreamConfig *config)
{
	PayloadWriter *writer = palloc0(sizeof(PayloadWriter));
	int			   natts = config->desc->natts;
	int			   n = 0;

	writer->format = config->format;
	if (writer->format->write == NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("format \"%s\" of stream \"%s\" cannot be written", writer->format->name, config->name),
						errhint("Insert by a foreign table of another format.")));
	writer->columns = palloc(sizeof(int) * Max(natts, 1));
	writer->values = palloc(sizeof(Datum) * Max(natts, 1));
	writer->nulls = palloc(sizeof(bool) * Max(natts, 1));
	for (int i = 0; i < natts; i++)
		if (write_has(&config->columns[i]))
			writer->columns[n++] = i;
	writer->desc = CreateTemplateTupleDesc(n);
	for (int i = 0; i < n; i++)
	{
		const StreamColumn *column = &config->columns[writer->columns[i]];

		TupleDescInitEntry(writer->desc, i + 1, write_name(column, writer->format->names_fields), column->type,
						   column->typmod, 0);
		TupleDescInitEntryCollation(writer->desc, i + 1, TupleDescAttr(config->desc, writer->columns[i])->attcollation);
	}
	writer->desc = BlessTupleDesc(writer->desc);
	return writer;
}

bool
streamext_write_row(PayloadWriter *writer, const Datum *values, const bool *nulls, StringInfo to)
{
	for (int i = 0; i < writer->desc->natts; i++)
	{
		writer->values[i] = values[writer->columns[i]];
		writer->nulls[i] = nulls[writer->columns[i]];
	}
	return writer->format->write(writer, to);
}

/* ---- formats ---- */

bool
streamext_write_json(const PayloadWriter *writer, StringInfo to)
{
	HeapTuple tuple = heap_form_tuple(writer->desc, writer->values, writer->nulls);
	text	 *json = DatumGetTextPP(DirectFunctionCall1(row_to_json, HeapTupleGetDatum(tuple)));

	appendBinaryStringInfo(to, VARDATA_ANY(json), VARSIZE_ANY_EXHDR(json));
	return true;
}

static char *
write_text(const PayloadWriter *writer, int column)
{
	Oid	 output;
	bool is_varlena;

	getTypeOutputInfo(TupleDescAttr(writer->desc, column)->atttypid, &output, &is_varlena);
	return OidOutputFunctionCall(output, writer->values[column]);
}

bool
streamext_write_text(const PayloadWriter *writer, StringInfo to)
{
	if (writer->desc->natts != 1 || writer->nulls[0])
		return false;
	appendStringInfoString(to, write_text(writer, 0));
	return true;
}

bool
streamext_write_raw(const PayloadWriter *writer, StringInfo to)
{
	bytea *bytes;

	if (writer->desc->natts != 1 || writer->nulls[0])
		return false;
	bytes = DatumGetByteaPP(writer->values[0]);
	appendBinaryStringInfo(to, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	return true;
}
