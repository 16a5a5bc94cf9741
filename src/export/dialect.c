/*
 * export/dialect.c
 *		The dialects that there are.
 */
#include "base/streamext.h"

#include "export/dialect.h"

static const ExportDialect *const dialects[] = { &streamext_export_postgres, &streamext_export_spark };

const ExportDialect *
streamext_export_dialect(const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(dialects); i++)
	{
		if (strcmp(dialects[i]->name, name) == 0)
			return dialects[i];
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", dialects[i]->name);
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there is no dialect \"%s\"", name),
					errhint("Those that there are: %s.", names.data)));
	return NULL; /* keep the compiler quiet */
}
