/*
 * base/identity.c
 *		As whom code runs: scopes of an owner and of the extension.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "base/identity.h"
#include "base/label.h"

void
streamext_identity_set(const char *name, const char *value)
{
	if (value != NULL)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static IdentityScope
identity_become(Oid user, int restriction)
{
	IdentityScope scope;

	GetUserIdAndSecContext(&scope.user, &scope.sec_context);
	SetUserIdAndSecContext(user, scope.sec_context | restriction);
	scope.guc_level = NewGUCNestLevel();
	streamext_identity_set("search_path", "pg_catalog, pg_temp");
	return scope;
}

IdentityScope
streamext_identity_enter(Oid owner)
{
	return identity_become(owner, SECURITY_RESTRICTED_OPERATION);
}

void
streamext_identity_rest(Oid owner)
{
	SetUserIdAndSecContext(owner, SECURITY_RESTRICTED_OPERATION);
}

void
streamext_identity_rise(void)
{
	SetUserIdAndSecContext(GetSessionUserId(), 0);
}

IdentityScope
streamext_identity_enter_lightly(Oid owner)
{
	IdentityScope scope = { 0 };

	GetUserIdAndSecContext(&scope.user, &scope.sec_context);
	SetUserIdAndSecContext(owner, scope.sec_context | SECURITY_RESTRICTED_OPERATION);
	return scope;
}

/*
 * As the abort of a subtransaction would, every setting goes back, also one that a function made with set_config: committing the
 * level would keep those for the session, which in a worker is everybody's.
 */
void
streamext_identity_leave(IdentityScope scope)
{
	if (scope.guc_level > 0)
		AtEOXact_GUC(false, scope.guc_level);
	SetUserIdAndSecContext(scope.user, scope.sec_context);
}

static Oid
identity_extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(get_extension_oid("streamext", false)));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	owner = HeapTupleIsValid(tuple) ? ((Form_pg_extension) GETSTRUCT(tuple))->extowner : GetUserId();
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

IdentityScope
streamext_identity_enter_extension(void)
{
	return identity_become(identity_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
}

bool
streamext_identity_is_own_process(void)
{
	return MyBgworkerEntry != NULL && strcmp(MyBgworkerEntry->bgw_library_name, "streamext") == 0;
}

static bool identity_glances = false;

void
streamext_identity_glance(bool glances)
{
	identity_glances = glances;
}

bool
streamext_identity_glances(void)
{
	return identity_glances;
}

void
streamext_identity_refuse_glance(void)
{
	ereport(ERROR, (errcode(STREAMEXT_ERRCODE_GLANCE), errmsg("code of an ordinary role is not run at a glance")));
}

static bool
identity_mistrusts_owner(Oid owner)
{
	if (superuser_arg(owner))
		return false;
	if (identity_glances)
		streamext_identity_refuse_glance();
	return true;
}

bool
streamext_identity_mistrusts_function(Oid function)
{
	HeapTuple tuple;
	Oid		  owner;

	if (function < FirstNormalObjectId || !(superuser() || identity_glances))
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return identity_mistrusts_owner(owner);
}

bool
streamext_identity_mistrusts_type(Oid type)
{
	HeapTuple tuple;
	Oid		  owner;

	if (type < FirstNormalObjectId || !(superuser() || identity_glances))
		return false;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return true;
	owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
	ReleaseSysCache(tuple);
	return identity_mistrusts_owner(owner);
}

/* seen: composite types that have been looked at. Each once: the ways to one may double with each level. */
static bool
identity_mistrusts_members(Oid type, List **seen, bool (*mistrusts)(Oid type, List **seen))
{
	TupleDesc desc;
	bool	  result = false;

	if (list_member_oid(*seen, type))
		return false;
	*seen = lappend_oid(*seen, type);
	desc = lookup_rowtype_tupdesc(type, -1);
	for (int i = 0; i < desc->natts && !result; i++)
		result = !TupleDescAttr(desc, i)->attisdropped && mistrusts(TupleDescAttr(desc, i)->atttypid, seen);
	ReleaseTupleDesc(desc);
	return result;
}

static Oid
identity_domain_base(Oid type)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid		  base = HeapTupleIsValid(tuple) ? ((Form_pg_type) GETSTRUCT(tuple))->typbasetype : InvalidOid;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return base;
}

static bool
identity_mistrusts_input(Oid type, List **seen)
{
	check_stack_depth();
	if (type < FirstNormalObjectId || !superuser())
		return false;
	switch (get_typtype(type))
	{
		case TYPTYPE_DOMAIN:
			return streamext_identity_mistrusts_type(type) ||
				   identity_mistrusts_input(identity_domain_base(type), seen);
		case TYPTYPE_COMPOSITE:
			return identity_mistrusts_members(type, seen, identity_mistrusts_input);
		case TYPTYPE_RANGE:
			return streamext_identity_mistrusts_type(type) || identity_mistrusts_input(get_range_subtype(type), seen);
		case TYPTYPE_MULTIRANGE:
			return identity_mistrusts_input(get_multirange_range(type), seen);
		default:
			return identity_mistrusts_input(get_element_type(type), seen);
	}
}

bool
streamext_identity_mistrusts_input(Oid type)
{
	List *seen = NIL;
	bool  result = identity_mistrusts_input(type, &seen);

	list_free(seen);
	return result;
}

/* The same of a value that becomes JSON: is there anywhere a type of an ordinary role's, which may have a cast? */
static bool
identity_mistrusts_output(Oid type, List **seen)
{
	check_stack_depth();
	if (type < FirstNormalObjectId || !superuser())
		return false;
	if (OidIsValid(get_element_type(type)))
		return identity_mistrusts_output(get_element_type(type), seen);
	return streamext_identity_mistrusts_type(type) ||
		   (get_typtype(type) == TYPTYPE_COMPOSITE &&
			identity_mistrusts_members(type, seen, identity_mistrusts_output)) ||
		   (get_typtype(type) == TYPTYPE_DOMAIN && identity_mistrusts_output(identity_domain_base(type), seen));
}

bool
streamext_identity_mistrusts_columns(Oid relid)
{
	Relation rel;
	List	*seen = NIL;
	bool	 result = false;

	if (!superuser())
		return false;
	rel = relation_open(relid, AccessShareLock);
	for (int i = 0; i < RelationGetNumberOfAttributes(rel) && !result; i++)
		result = identity_mistrusts_output(TupleDescAttr(RelationGetDescr(rel), i)->atttypid, &seen);
	relation_close(rel, NoLock);
	return result;
}

void
streamext_identity_check_columns(Oid relid)
{
	if (streamext_identity_mistrusts_columns(relid))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("a superuser reads no rows of %s as JSON", streamext_relation_label(relid)),
						errdetail("A column is of an ordinary role's type, whose casts would run as the superuser."),
						errhint("SET ROLE to a role that may read it, such as its owner.")));
}
