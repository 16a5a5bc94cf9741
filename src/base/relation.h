/*
 * base/relation.h
 *		What a relation is called in SQL, and whose it is.
 */
#ifndef STREAMEXT_RELATION_H
#define STREAMEXT_RELATION_H

/* With its schema, in quotes where they are needed, palloc'd: for statements, not for messages (base/label.h). XX000 if there is no such relation. */
extern char *streamext_relation_name(Oid relid);

/* InvalidOid or XX000, by missing_ok, if there is no such relation. */
extern Oid streamext_relation_owner(Oid relid, bool missing_ok);

#endif /* STREAMEXT_RELATION_H */
