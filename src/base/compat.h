/*
 * base/compat.h
 *		What several files need and PostgreSQL's versions have under different names. What one file alone needs stands
 *		in that file, below its own #if.
 */
#ifndef STREAMEXT_COMPAT_H
#define STREAMEXT_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18 has replaced pg_attribute_noreturn(), which stood behind the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 16 asks for rights on any object by its catalogue; before, each kind had a function of its own. */
#if PG_VERSION_NUM < 160000
#define object_aclcheck(catalog, object, role, mode) compat_aclcheck_##catalog(object, role, mode)
#define object_ownercheck(catalog, object, role) compat_ownercheck_##catalog(object, role)
#define compat_aclcheck_ProcedureRelationId pg_proc_aclcheck
#define compat_aclcheck_NamespaceRelationId pg_namespace_aclcheck
#define compat_aclcheck_ForeignServerRelationId pg_foreign_server_aclcheck
#define compat_ownercheck_RelationRelationId pg_class_ownercheck
#define compat_ownercheck_DatabaseRelationId pg_database_ownercheck
#endif

/* 16 and 18 have added an argument. */
#if PG_VERSION_NUM >= 160000
#define compat_name_list(name) stringToQualifiedNameList(name, NULL)
#else
#define compat_name_list(name) stringToQualifiedNameList(name)
#endif
#if PG_VERSION_NUM >= 180000
#define compat_minimal_tuple(desc, values, nulls) heap_form_minimal_tuple(desc, values, nulls, 0)
#else
#define compat_minimal_tuple(desc, values, nulls) heap_form_minimal_tuple(desc, (Datum *) (values), (bool *) (nulls))
#endif

#endif /* STREAMEXT_COMPAT_H */
