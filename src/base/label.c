/*
 * base/label.c
 *		Names of objects for messages. What the functions promise is in base/label.h.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "foreign/foreign.h"
#include "utils/lsyscache.h"

#include "base/label.h"

/* In a transaction; NULL: there is no such object. */
static char *
label_relation(Oid relid)
{
	char *name = get_rel_name(relid);
	char *schema = name != NULL ? get_namespace_name(get_rel_namespace(relid)) : NULL;

	return schema != NULL ? psprintf("%s.%s", schema, name) : NULL;
}

static char *
label_server(Oid serverid)
{
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);

	return server != NULL ? server->servername : NULL;
}

static const char *
label_look_up(Oid oid, char *(*name_of)(Oid oid))
{
	MemoryContext cxt = CurrentMemoryContext;
	bool		  own = !IsTransactionOrTransactionBlock();
	const char	 *label;
	char		 *name;

	if (!own && !IsTransactionState())
		return psprintf("with OID %u", oid);
	if (own)
		StartTransactionCommand();
	name = name_of(oid);
	MemoryContextSwitchTo(cxt);
	label = name != NULL ? psprintf("\"%s\"", name) : psprintf("with OID %u", oid);
	if (own)
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(cxt);
	}
	return label;
}

const char *
streamext_relation_label(Oid relid)
{
	return label_look_up(relid, label_relation);
}

const char *
streamext_server_label(Oid serverid)
{
	return label_look_up(serverid, label_server);
}

const char *
streamext_database_label(Oid dboid)
{
	return label_look_up(dboid, get_database_name);
}
