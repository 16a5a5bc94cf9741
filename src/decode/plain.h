/*
 * decode/plain.h
 *		What may raise without a subtransaction around it: it opens, locks and looks up nothing that an error would leave behind.
 */
#ifndef STREAMEXT_PLAIN_H
#define STREAMEXT_PLAIN_H

#include "postgres.h"

#include "nodes/nodes.h"

/*
 * Whether texts become values of the type in the same way, now: such types, enums, arrays of them, domains over them whose checks are plain, and from
 * JSON composites of them. Where a domain is in it, its checks may be others with the next batch.
 */
extern bool streamext_value_converts_plainly(Oid type, bool json);

/* Whether an expression on a stream's columns, as planned, is made of PostgreSQL's own immutable functions in C over plain types. */
extern bool streamext_expr_is_plain(Node *expr);

#endif /* STREAMEXT_PLAIN_H */
