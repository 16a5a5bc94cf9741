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

#endif /* STREAMEXT_COMPAT_H */
