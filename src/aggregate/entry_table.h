/*
 * aggregate/entry_table.h
 *		A hash table by group's entry, made by PostgreSQL's simplehash. Who includes it, once for each table, defines SH_PREFIX and SH_ELEMENT_TYPE, whose
 *		fields entry and status are the table's.
 */
#define SH_KEY_TYPE const GroupEntry *
#define SH_KEY entry
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) ((uintptr_t) (key) >> 3))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"
