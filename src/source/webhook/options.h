/*
 * source/webhook/options.h
 *		The options of webhooks.
 */
#ifndef STREAMEXT_WEBHOOK_OPTIONS_H
#define STREAMEXT_WEBHOOK_OPTIONS_H

#include "base/option.h"

extern const OptionSpec streamext_webhook_options[];

#endif /* STREAMEXT_WEBHOOK_OPTIONS_H */
