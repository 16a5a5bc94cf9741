/*
 * base/own_schema.c
 *		The two schemas of the extension.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/own_schema.h"

/*
 * The second schema, if it is the extension's. Found so once it stays it for the process: the look-up, by planning of a view, is then
 * that of a name.
 */
static Oid
own_internal_schema(void)
{
	static Oid known = InvalidOid;
	Oid namespace = get_namespace_oid(STREAMEXT_INTERNAL_SCHEMA, true);
	Oid extension;

	if (!OidIsValid(namespace) || namespace == known)
		return namespace;
	extension = getExtensionOfObject(NamespaceRelationId, namespace);
	if (!OidIsValid(extension) || extension != get_extension_oid("streamext", true))
		return InvalidOid;
	return known = namespace;
}

bool
streamext_own_schema(Oid namespace)
{
	return OidIsValid(namespace) &&
		   (namespace == get_namespace_oid(STREAMEXT_SCHEMA, true) || namespace == own_internal_schema());
}

static Oid
own_function_in(Oid namespace, const char *name, oidvector *types)
{
	return OidIsValid(namespace) ? GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
												   PointerGetDatum(types), ObjectIdGetDatum(namespace))
								 : InvalidOid;
}

Oid
streamext_own_function(const char *name, const Oid *types, int n)
{
	oidvector *vector = buildoidvector(types, n);
	Oid		   function = own_function_in(own_internal_schema(), name, vector);

	return OidIsValid(function) ? function : own_function_in(get_namespace_oid(STREAMEXT_SCHEMA, true), name, vector);
}

Oid
streamext_own_relation(const char *name)
{
	Oid internal = own_internal_schema();
	Oid relation = OidIsValid(internal) ? get_relname_relid(name, internal) : InvalidOid;
	Oid namespace = OidIsValid(relation) ? InvalidOid : get_namespace_oid(STREAMEXT_SCHEMA, true);

	return OidIsValid(namespace) ? get_relname_relid(name, namespace) : relation;
}
