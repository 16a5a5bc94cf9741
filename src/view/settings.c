/*
 * view/settings.c
 *		The settings that a view's expressions run under.
 *
 * PostgreSQL calls functions immutable whose texts follow settings: two workers, or one before and after a reload, would make two
 * groups of one value. So what the session of CREATE VIEW had is kept with the view, as its TimeZone is. Of most settings
 * every server has the same value; only others are stored (streamext.bytea_output = escape), so a view that stores none
 * runs under the values below, wherever its definition is restored, and views of before are what they were.
 */
#include "base/streamext.h"

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/ruleutils.h"

#include "base/identity.h"
#include "view/compile.h"
#include "view/settings.h"

typedef struct ViewSetting
{
	const char *name;
	const char *preset; /* of a view that stores none */
	bool		locale; /* any name of the C locale is the preset */
} ViewSetting;

static const ViewSetting view_settings[] = {
	{ "extra_float_digits", "1" },
	{ "bytea_output", "hex" },
	{ "quote_all_identifiers", "off" },
	{ "xmlbinary", "base64" },
	{ "xmloption", "content" },
	{ "lc_monetary", "C", true },
	{ "lc_numeric", "C", true },
	{ "lc_time", "C", true },
	{ "default_text_search_config", "pg_catalog.english" },
	{ "timezone_abbreviations", "Default" },
	{ "array_nulls", "on" },
	{ "backslash_quote", "safe_encoding" },
	{ "transform_null_equals", "off" },
	{ "standard_conforming_strings", "on" },
};

static const char *const view_locales[] = { "C", "POSIX", "C.UTF-8", "C.utf8", "" };

bool
streamext_view_is_setting(const char *name)
{
	for (int i = 0; i < lengthof(view_settings); i++)
		if (strcmp(view_settings[i].name, name) == 0)
			return true;
	return false;
}

const char *
streamext_view_setting(int i, const char **value)
{
	const ViewSetting *setting;

	if (i >= lengthof(view_settings))
		return NULL;
	setting = &view_settings[i];
	*value = GetConfigOption(setting->name, false, false);
	if (strcmp(*value, setting->preset) == 0)
		*value = NULL;
	for (int l = 0; setting->locale && *value != NULL && l < lengthof(view_locales); l++)
		if (strcmp(*value, view_locales[l]) == 0)
			*value = NULL;
	return setting->name;
}

/* Most have the value already, and some take long to check one. */
static void
settings_set(const char *name, const char *value)
{
	const char *now = GetConfigOption(name, false, false);

	if (strcmp(now, value) != 0)
		streamext_identity_set(name, value);
}

void
streamext_view_enter_settings(const ContinuousViewOptions *options)
{
	settings_set("TimeZone", options->timezone);
	settings_set("DateStyle", options->datestyle);
	settings_set("IntervalStyle", options->intervalstyle);
	for (int i = 0; i < lengthof(view_settings); i++)
	{
		const char *value = view_settings[i].preset;
		ListCell   *cell;

		foreach (cell, options->settings)
			if (strcmp(lfirst_node(DefElem, cell)->defname, view_settings[i].name) == 0)
				value = strVal(lfirst_node(DefElem, cell)->arg);
		settings_set(view_settings[i].name, value);
	}
}

char *
streamext_view_text(Query *query)
{
	static const char *const pinned[][2] = {
		{ "datestyle", "ISO" },
		{ "intervalstyle", "postgres" },
		{ "extra_float_digits", "1" },
	};
	int	  level = NewGUCNestLevel();
	char *text;

	for (int i = 0; i < lengthof(pinned); i++)
		streamext_identity_set(pinned[i][0], pinned[i][1]);
	text = pg_get_querydef(query, false);
	AtEOXact_GUC(false, level);
	return text;
}
