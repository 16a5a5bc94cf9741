/*
 * source/listen.h
 *		The option listen of servers whose records are brought to them.
 */
#ifndef STREAMEXT_LISTEN_H
#define STREAMEXT_LISTEN_H

#include "base/streamext.h"

#include "base/option.h"

/* Its host and port, palloc'd; host "" for all addresses. False: it is not like host:port. */
extern bool streamext_listen_address(const char *listen, char **host, char **port);

/* An OptionSpec's check. */
extern void streamext_listen_check(const OptionSpec *spec, const char *value);

#endif /* STREAMEXT_LISTEN_H */
