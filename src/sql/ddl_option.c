/*
 * sql/ddl_option.c
 *		The options streamext.* of a view: taken out of its statements, and kept in pg_class. What the functions promise is in sql/ddl_option.h.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/option.h"
#include "sql/ddl_option.h"
#include "view/compile.h"
#include "view/settings.h"

/* Settings that a view's expressions run under, in the order of pg_class. */
static const char *const option_kept_settings[] = { "timezone", "datestyle", "intervalstyle" };

static const char *const option_names[] = { "continuous",	 "retention", "lateness",  "keep_late",		"step",
											"max_groups",	 "timezone",  "datestyle", "intervalstyle", "into",
											"emit_interval", "notify",	  "emit",	   "alert",			"key",
											"clear",		 "to",		  "hold",	   "repeat",		"absent",
											"every",		 "inner" };

/* Of views that are alerts, and of no others. */
static const char *const option_alert_names[] = { "alert", "key", "clear", "to", "hold", "repeat", "absent", "every" };

/* ---- names and kinds ---- */

bool
streamext_ddl_option_is_own(const DefElem *def)
{
	if (def->defnamespace != NULL)
		return strcmp(def->defnamespace, "streamext") == 0;
	return strncmp(def->defname, DDL_OPTION_PREFIX, strlen(DDL_OPTION_PREFIX)) == 0;
}

DefElem *
streamext_ddl_option_find(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			return lfirst(cell);
	return NULL;
}

static bool
option_is_name(const char *name)
{
	for (int i = 0; i < lengthof(option_names); i++)
		if (strcmp(name, option_names[i]) == 0)
			return true;
	return streamext_view_is_setting(name);
}

static bool
option_is_interval(const char *name)
{
	static const char *const names[] = { "retention", "lateness", "step",	"emit_interval",
										 "hold",	  "repeat",	  "absent", "every" };

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* Raises for a name that is none of ours. */
static void
option_check_name(const char *name)
{
	if (!option_is_name(name + strlen(DDL_OPTION_PREFIX)))
		streamext_view_option_unknown(name);
}

void
streamext_ddl_option_check_prefix(List *options)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (def->defnamespace == NULL && option_is_name(def->defname))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized parameter \"%s\"", def->defname),
					 errhint("Write streamext.%s.", def->defname)));
	}
}

bool
streamext_ddl_option_alert(List *own)
{
	DefElem *option = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "alert");

	return option != NULL && defGetBoolean(option);
}

void
streamext_ddl_option_check_kind(List *own, bool continuous)
{
	bool	  alert = streamext_ddl_option_alert(own);
	ListCell *cell;

	if (alert && continuous)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a continuous view cannot be an alert"),
						errhint("Make the alert a view over the continuous view.")));
	foreach (cell, own)
	{
		const char *name = lfirst_node(DefElem, cell)->defname;
		bool		of_alerts = false;

		for (int i = 0; i < lengthof(option_alert_names); i++)
			of_alerts = of_alerts || strcmp(name + strlen(DDL_OPTION_PREFIX), option_alert_names[i]) == 0;
		if (of_alerts == alert || strcmp(name, DDL_OPTION_PREFIX "continuous") == 0 ||
			strcmp(name, DDL_OPTION_PREFIX "alert") == 0)
			continue;
		if (of_alerts)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("view option \"%s\" is for alerts", name),
							continuous ? errhint("Make an alert, a view over the continuous view, and give it to that.")
									   : errhint("Add streamext.alert.")));
		if (alert)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("view option \"%s\" is for continuous views, not for alerts", name),
							errhint("Give it to the continuous view that the alert reads.")));
	}
}

/* ---- in a statement and in pg_class ---- */

static List *
option_take(List **options, bool with_values)
{
	List	 *own = NIL;
	ListCell *cell;

	foreach (cell, *options)
	{
		DefElem *def = lfirst_node(DefElem, cell);
		char	*name;
		char	*value;

		if (!streamext_ddl_option_is_own(def))
			continue;
		*options = foreach_delete_current (*options, cell);
		name = def->defnamespace != NULL ? psprintf(DDL_OPTION_PREFIX "%s", def->defname) : pstrdup(def->defname);
		option_check_name(name);
		if (streamext_ddl_option_find(own, name) != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("view option \"%s\" is given more than once", name), errhint("Give it once.")));
		if (!with_values)
			value = pstrdup("");
		else if (strcmp(name, DDL_OPTION_PREFIX "continuous") == 0 ||
				 strcmp(name, DDL_OPTION_PREFIX "keep_late") == 0 || strcmp(name, DDL_OPTION_PREFIX "notify") == 0 ||
				 strcmp(name, DDL_OPTION_PREFIX "alert") == 0 || strcmp(name, DDL_OPTION_PREFIX "inner") == 0)
			value = pstrdup(defGetBoolean(def) ? "true" : "false");
		else
			value = pstrdup(defGetString(def));
		own = lappend(own, makeDefElem(name, (Node *) makeString(value), -1));
	}
	return own;
}

/* What is stored was told of when it was given. */
List *
streamext_ddl_option_take(List **options, bool with_values)
{
	List	 *own = option_take(options, with_values);
	ListCell *cell;

	foreach (cell, own)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (option_is_interval(def->defname + strlen(DDL_OPTION_PREFIX)))
			streamext_interval_doubt("view option", def->defname, strVal(def->arg));
	}
	return own;
}

/* The relation's row of pg_class, and all of its options. */
static HeapTuple
option_relation(Oid relid, List **options)
{
	HeapTuple tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	bool	  isnull;
	Datum	  datum;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	*options = isnull ? NIL : untransformRelOptions(datum);
	return tuple;
}

List *
streamext_ddl_option_stored(Oid relid)
{
	List *options;

	heap_freetuple(option_relation(relid, &options));
	return option_take(&options, true);
}

void
streamext_ddl_option_store(Oid relid, List *own)
{
	Relation  pg_class = table_open(RelationRelationId, RowExclusiveLock);
	List	 *options;
	HeapTuple tuple = option_relation(relid, &options);
	Datum	  values[Natts_pg_class] = { 0 };
	bool	  nulls[Natts_pg_class] = { 0 };
	bool	  replaces[Natts_pg_class] = { 0 };
	int		  i = Anum_pg_class_reloptions - 1;

	(void) option_take(&options, true);
	values[i] = transformRelOptions((Datum) 0, list_concat(options, own), NULL, NULL, false, false);
	nulls[i] = values[i] == (Datum) 0;
	replaces[i] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(pg_class), values, nulls, replaces);
	CatalogTupleUpdate(pg_class, &tuple->t_self, tuple);
	table_close(pg_class, RowExclusiveLock);
	CommandCounterIncrement();
}

/* ---- what a new view keeps ---- */

/* Raises for a value that no worker could set; changes nothing. */
static void
option_try_setting(const char *setting, const char *value)
{
	(void) set_config_option(setting, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, false, ERROR, false);
}

/*
 * The other settings that are not as every server has them. Where those above are all given it is a dump that is restored, and
 * what it does not give was not stored.
 */
static List *
option_keep_unusual(List *own, bool restored)
{
	const char *setting;
	const char *value;

	for (int i = 0; (setting = streamext_view_setting(i, &value)) != NULL; i++)
	{
		char	*name = psprintf(DDL_OPTION_PREFIX "%s", setting);
		DefElem *def = streamext_ddl_option_find(own, name);

		if (def != NULL)
			option_try_setting(setting, defGetString(def));
		else if (value != NULL && !restored)
			own = lappend(own, makeDefElem(name, (Node *) makeString(pstrdup(value)), -1));
	}
	return own;
}

List *
streamext_ddl_option_keep_settings(List *own)
{
	bool restored = true;

	for (int i = 0; i < lengthof(option_kept_settings); i++)
	{
		const char *setting = option_kept_settings[i];
		char	   *name = psprintf(DDL_OPTION_PREFIX "%s", setting);
		DefElem	   *def = streamext_ddl_option_find(own, name);

		restored = restored && def != NULL;
		if (def == NULL)
			own = lappend(own,
						  makeDefElem(name, (Node *) makeString(pstrdup(GetConfigOption(setting, false, false))), -1));
		else
			option_try_setting(setting, defGetString(def));
	}
	return option_keep_unusual(own, restored);
}

List *
streamext_ddl_option_keep_former(List *own, List *former)
{
	static const char *const names[] = { "retention", "lateness", "keep_late",	   "step",	 "max_groups",
										 "into",	  "emit",	  "emit_interval", "notify", "inner" };

	for (int i = 0; i < lengthof(names); i++)
	{
		char	*name = psprintf(DDL_OPTION_PREFIX "%s", names[i]);
		DefElem *def = streamext_ddl_option_find(own, name) == NULL ? streamext_ddl_option_find(former, name) : NULL;

		if (def != NULL)
			own = lappend(own, makeDefElem(name, (Node *) makeString(pstrdup(defGetString(def))), -1));
	}
	return own;
}

/* ---- what ALTER may change ---- */

/* What ALTER may not do, because the kept state would not be that of the view. */
static void
option_check_change(const DefElem *old, const DefElem *new, const char *name)
{
	static const char *const free_options[] = { "retention",  "lateness",	   "keep_late",
												"max_groups", "emit_interval", "notify" };

	for (int i = 0; i < lengthof(free_options); i++)
		if (strcmp(name + strlen(DDL_OPTION_PREFIX), free_options[i]) == 0)
			return;
	if (strcmp(name, DDL_OPTION_PREFIX "continuous") == 0)
	{
		if (new != NULL && defGetBoolean((DefElem *) new))
			return;
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a continuous view cannot be made an ordinary view by ALTER"),
						errhint("Use CREATE OR REPLACE VIEW with streamext.continuous = false.")));
	}
	if (old != NULL && new != NULL && strcmp(defGetString((DefElem *) old), defGetString((DefElem *) new)) == 0)
		return;
	if (old == NULL && new == NULL)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("view option \"%s\" cannot be changed by ALTER", name),
		 errhint(
			 "Use CREATE OR REPLACE VIEW, which builds the view anew; ALTER can change streamext.retention, "
			 "streamext.lateness, streamext.keep_late, streamext.max_groups, streamext.emit_interval and streamext.notify.")));
}

/* What ALTER may not do to an alert. */
static void
option_check_alert_change(List *changes, bool reset)
{
	DefElem *alert = streamext_ddl_option_find(changes, DDL_OPTION_PREFIX "alert");
	DefElem *yes = makeDefElem(DDL_OPTION_PREFIX "alert", (Node *) makeString("true"), -1);

	if (alert != NULL && (reset || !defGetBoolean(alert)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("an alert cannot be made an ordinary view by ALTER"),
				 errhint("Use CREATE OR REPLACE VIEW without streamext.alert.")));
	streamext_ddl_option_check_kind(lappend(list_copy(changes), yes), false);
}

List *
streamext_ddl_option_change(List *stored, List *changes, bool reset)
{
	bool	  alert = streamext_ddl_option_alert(stored);
	ListCell *cell;

	if (alert)
		option_check_alert_change(changes, reset);
	else if (!reset)
		streamext_ddl_option_check_kind(changes, true);

	foreach (cell, changes)
	{
		DefElem *change = lfirst_node(DefElem, cell);
		DefElem *old = streamext_ddl_option_find(stored, change->defname);

		if (!alert)
			option_check_change(old, reset ? NULL : change, change->defname);
		if (old != NULL && reset)
			stored = list_delete_ptr(stored, old);
		else if (old != NULL)
			old->arg = change->arg;
		else if (!reset)
			stored = lappend(stored, change);
	}
	return stored;
}
