/*
 * source/source.c
 *		Which connectors there are, from source/kinds.h.
 */
#include "base/streamext.h"

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
	for (const ConnectorOps *const *ops = streamext_connectors; *ops != NULL; ops++)
		if ((*ops)->writable)
			return (*ops)->name;
	return "no";
}
