/*
 * base/own_schema.h
 *		The two schemas of the extension: streamext, whose names are the contract's, and streamext_internal, whose names nobody types.
 *
 * A database with the objects of version 1.0 has the first only, and somebody else may have made the second there.
 */
#ifndef STREAMEXT_OWN_SCHEMA_H
#define STREAMEXT_OWN_SCHEMA_H

/* What is in a dump of a user's objects, or is a name of the contract, stays in the first. */
#define STREAMEXT_SCHEMA "streamext"
#define STREAMEXT_INTERNAL_SCHEMA "streamext_internal"

/* Whether the schema is one of the two. */
extern bool streamext_own_schema(Oid namespace);

/* One of the extension's functions, past the rights on its schema; InvalidOid: there is none. */
extern Oid streamext_own_function(const char *name, const Oid *types, int n);

/* The same of a table or view. */
extern Oid streamext_own_relation(const char *name);

#endif /* STREAMEXT_OWN_SCHEMA_H */
