/*
 * source/webhook/options.h
 *		The options of webhooks.
 */
#ifndef STREAMEXT_WEBHOOK_OPTIONS_H
#define STREAMEXT_WEBHOOK_OPTIONS_H

#include "base/option.h"

extern const OptionSpec streamext_webhook_options[];

/* Letters, digits, hyphens and underscores, or nothing. */
extern bool streamext_webhook_is_name(const char *header);

#endif /* STREAMEXT_WEBHOOK_OPTIONS_H */
