/*
 * base/label.h
 *		Names for messages, in quotes, of what is known by its OID.
 *
 * In a transaction or outside of any: then one is begun for it and ended, and so is the caller's no more than it was. What is not there (any more), or
 * cannot be looked up because the transaction is aborted, is "with OID n", so that "continuous view %s" is a sentence anyhow. In the current context.
 */
#ifndef STREAMEXT_LABEL_H
#define STREAMEXT_LABEL_H

extern const char *streamext_relation_label(Oid relid); /* with its schema */
extern const char *streamext_server_label(Oid serverid);
extern const char *streamext_database_label(Oid dboid);

#endif /* STREAMEXT_LABEL_H */
