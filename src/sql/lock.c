/*
 * sql/lock.c
 *		Relations that may be dropped while a call waits.
 *
 * What a function was given is an OID, and whatever it found out about it is void after the next wait for a lock. So a lock
 * comes first, and what it guards is looked up behind it. A function that waits for a worker must not hold one meanwhile: the
 * worker's own lock would queue up behind a DROP that waits for the function.
 */
#include "base/streamext.h"

#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "view/reads.h"
#include "sql/lock.h"
#include "view/compile.h"

pg_noreturn static void
lock_gone(Oid relid, const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
					name != NULL ? errmsg("relation \"%s\" does not exist", name)
								 : errmsg("relation with OID %u does not exist", relid),
					name != NULL ? errdetail("It was dropped meanwhile.") : 0));
}

char *
streamext_lock_relation(Oid relid, LOCKMODE mode)
{
	char *former = get_rel_name(relid);
	char *name;

	LockRelationOid(relid, mode);
	name = get_rel_name(relid);
	if (name == NULL)
		lock_gone(relid, former);
	return name;
}

void
streamext_lock_check_there(Oid relid, const char *name)
{
	AcceptInvalidationMessages();
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		lock_gone(relid, name);
}

Oid
streamext_lock_view(Oid viewoid)
{
	for (;;)
	{
		Oid stream = streamext_view_stream(viewoid);

		if (!OidIsValid(stream))
			return InvalidOid;
		UnlockRelationOid(viewoid, AccessShareLock);
		LockRelationOid(stream, AccessShareLock);
		if (streamext_view_stream(viewoid) == stream)
			return stream;
		UnlockRelationOid(stream, AccessShareLock);
	}
}
