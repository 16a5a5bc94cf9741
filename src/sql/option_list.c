/*
 * sql/option_list.c
 *		All that the tables of options say, as rows: what test/test_tutorial.py holds docs/reference.md to. What is not in the SQL script: the
 *		test makes its function.
 */
#include "base/streamext.h"

#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "source/connector.h"
#include "stream/definition.h"

#define OPTION_LIST_COLUMNS 9

static const char *const option_places[] = { "wrapper", "server", "mapping", "table", "column" };

PG_FUNCTION_INFO_V1(streamext_option_list);

/* An enum's words, else NULL. */
static Datum
option_words(const OptionSpec *spec, bool *isnull)
{
	ArrayBuildState *words = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	*isnull = spec->type != OPTION_ENUM;
	for (int i = 0; !*isnull && spec->words[i] != NULL; i++)
		accumArrayResult(words, CStringGetTextDatum(spec->words[i]), false, TEXTOID, CurrentMemoryContext);
	return *isnull ? (Datum) 0 : makeArrayResult(words, CurrentMemoryContext);
}

static void
option_put(ReturnSetInfo *rsinfo, const ConnectorOps *kind, const OptionSpec *spec)
{
	Datum values[OPTION_LIST_COLUMNS];
	bool  nulls[OPTION_LIST_COLUMNS] = { false };
	bool  ranged = spec->type == OPTION_INT || spec->type == OPTION_INTERVAL;

	values[0] = CStringGetTextDatum(kind->name);
	values[1] = CStringGetTextDatum(option_places[spec->place]);
	values[2] = CStringGetTextDatum(spec->name);
	values[3] = BoolGetDatum(spec->required);
	values[4] = BoolGetDatum(spec->type == OPTION_INTERVAL);
	values[5] = option_words(spec, &nulls[5]);
	values[6] = Int64GetDatum(spec->min);
	values[7] = Int64GetDatum(spec->max);
	values[8] = Int64GetDatum(spec->preset);
	nulls[6] = nulls[7] = !ranged;
	nulls[8] = !ranged && spec->type != OPTION_ENUM;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* (wrapper, place, name, required, is_interval, words, min, max, preset): intervals in microseconds, of an enum the word's number from 0. */
Datum
streamext_option_list(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	for (const ConnectorOps *const *kind = streamext_connectors; *kind != NULL; kind++)
	{
		const OptionSpec *tables[STREAMEXT_OPTION_TABLES];

		streamext_stream_tables(*kind, tables);
		for (int i = 0; tables[i] != NULL; i++)
			for (const OptionSpec *spec = tables[i]; spec->name != NULL; spec++)
				option_put((ReturnSetInfo *) fcinfo->resultinfo, *kind, spec);
	}
	return (Datum) 0;
}
