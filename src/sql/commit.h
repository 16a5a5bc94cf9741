/*
 * sql/commit.h
 *		What DDL notes of this transaction, for its commit.
 */
#ifndef STREAMEXT_COMMIT_H
#define STREAMEXT_COMMIT_H

#include "base/streamext.h"

/*
 * Registry changes of this transaction, applied at commit and forgotten at abort (sql/commit.c): the named stream or view was
 * created, altered or dropped. Workers and launcher then look into the catalogue themselves, so naming one too many is harmless.
 */
extern void streamext_touch_stream(Oid relid);
extern void streamext_touch_view(Oid viewoid, Oid stream_relid);
extern void streamext_touch_server(Oid serverid);
extern void streamext_touch_database(Oid dboid); /* probe it (after CREATE DATABASE ... TEMPLATE) */
extern void streamext_touch_rights(void);		 /* of some role, in whatever database */
extern void streamext_touch_teller(void);		 /* views that somebody is told of may be others */
extern void streamext_registry_install_callbacks(void);

#endif /* STREAMEXT_COMMIT_H */
