/*
 * sink/transport.c
 *		Which transports there are, from sink/transports.h.
 */
#include "base/streamext.h"

#include "sink/transport.h"

#define TRANSPORT(kind) &streamext_##kind##_transport,

static const TransportOps *const transports[] = {
#include "sink/transports.h"
};

#undef TRANSPORT

const TransportOps *
streamext_transport(const ConnectorOps *connector)
{
	for (int i = 0; i < lengthof(transports); i++)
		if (transports[i]->connector == connector)
			return transports[i];
	elog(ERROR, "no transport for streams of the %s wrapper", connector->name);
	return NULL; /* not reached */
}
