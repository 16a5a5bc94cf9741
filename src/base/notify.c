/*
 * base/notify.c
 *		To clients that LISTEN to a view's channel.
 */
#include "base/streamext.h"

#include "commands/async.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"

#include "base/notify.h"

void
streamext_into_notify(Oid viewoid, const char *payload)
{
	char *channel = psprintf("%s.%s", get_namespace_name(get_rel_namespace(viewoid)), get_rel_name(viewoid));

	if (strlen(channel) >= NAMEDATALEN)
		channel[pg_mbcliplen(channel, strlen(channel), NAMEDATALEN - 1)] = '\0';
	Async_Notify(channel, payload);
}
