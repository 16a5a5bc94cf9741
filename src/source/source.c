/*
 * source/source.c
 *		Which connectors there are, from source/kinds.h.
 */
#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "source/connector.h"

#define KIND(kind) &streamext_##kind##_ops,

const ConnectorOps *const streamext_connectors[] = {
#include "source/kinds.h"
	NULL,
};

#undef KIND

const char *
streamext_connector_writable(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (const ConnectorOps *const *ops = streamext_connectors; *ops != NULL; ops++)
		if ((*ops)->writable)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", (*ops)->name);
	return names.data;
}
