/*
 * view/options.c
 *		The streamext.* options of a view, kept as text in pg_class.reloptions.
 *
 * sql/ddl_view.c puts them there past PostgreSQL's own validation; here is the one place that knows their names and types.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/option.h"
#include "view/compile.h"
#include "view/settings.h"

void
streamext_view_option_unknown(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized view option \"%s\"", name),
			 errhint("Valid options are streamext.continuous, streamext.retention, streamext.lateness, "
					 "streamext.keep_late, streamext.step, streamext.max_groups, streamext.into, streamext.emit, "
					 "streamext.emit_interval and streamext.notify; of alerts streamext.alert, streamext.key, "
					 "streamext.hold, streamext.clear, streamext.repeat, streamext.absent, streamext.every and "
					 "streamext.to.")));
}

static int64
view_option_interval(const DefElem *def, bool zero)
{
	char	 *text = defGetString((DefElem *) def);
	Interval *interval = streamext_option_interval(def->defname, text);
	int64	  result;

	result = streamext_interval_usecs(interval, psprintf("view option \"%s\"", def->defname));
	if (result < 0 || (result == 0 && !zero))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for view option \"%s\": %s", def->defname, text),
						errdetail(zero ? "The interval must not be negative." : "The interval must be positive."),
						errhint("Write it like '30 s' or '1 day'.")));
	return result;
}

static int64
view_option_integer(const DefElem *def)
{
	char *text = defGetString((DefElem *) def);
	char *end;
	int64 result;

	errno = 0;
	result = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || result < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for view option \"%s\": %s", def->defname, text),
						errdetail("The value must be an integer that is not negative."),
						errhint("0, the default, is no limit.")));
	return result;
}

/* What goes to the target: windows that are closed, or changes. */
static bool
view_option_emits_changes(const DefElem *def)
{
	char *text = defGetString((DefElem *) def);

	if (strcmp(text, "changes") != 0 && strcmp(text, "windows") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for view option \"%s\": %s", def->defname, text),
						errhint("Valid values are windows, the default, and changes.")));
	return text[0] == 'c';
}

static void
view_option(ContinuousViewOptions *options, const DefElem *def)
{
	const char *prefix = "streamext.";
	const char *name = def->defname + strlen(prefix);

	if (strncmp(def->defname, prefix, strlen(prefix)) != 0)
		return;
	if (strcmp(name, "continuous") == 0)
		options->continuous = defGetBoolean((DefElem *) def);
	else if (strcmp(name, "retention") == 0)
		options->retention = view_option_interval(def, false);
	else if (strcmp(name, "lateness") == 0)
		options->lateness = view_option_interval(def, true);
	else if (strcmp(name, "keep_late") == 0)
		options->keep_late = defGetBoolean((DefElem *) def);
	else if (strcmp(name, "step") == 0)
		options->step = view_option_interval(def, false);
	else if (strcmp(name, "max_groups") == 0)
		options->max_groups = view_option_integer(def);
	else if (strcmp(name, "into") == 0)
		options->into = defGetString((DefElem *) def);
	else if (strcmp(name, "emit") == 0)
		options->emit_changes = view_option_emits_changes(def);
	else if (strcmp(name, "emit_interval") == 0)
		options->emit_interval = view_option_interval(def, false);
	else if (strcmp(name, "notify") == 0)
		options->notify = defGetBoolean((DefElem *) def);
	else if (strcmp(name, "inner") == 0)
		options->inner = defGetBoolean((DefElem *) def);
	else if (strcmp(name, "alert") == 0)
		options->alert = defGetBoolean((DefElem *) def);
	else if (strcmp(name, "key") == 0)
		options->key = defGetString((DefElem *) def);
	else if (strcmp(name, "clear") == 0)
		options->clear = defGetString((DefElem *) def);
	else if (strcmp(name, "to") == 0)
		options->to = defGetString((DefElem *) def);
	else if (strcmp(name, "hold") == 0)
		options->hold = view_option_interval(def, true);
	else if (strcmp(name, "repeat") == 0)
		options->repeat = view_option_interval(def, false);
	else if (strcmp(name, "absent") == 0)
		options->absent = view_option_interval(def, false);
	else if (strcmp(name, "every") == 0)
		options->every = view_option_interval(def, false);
	else if (strcmp(name, "timezone") == 0)
		options->timezone = defGetString((DefElem *) def);
	else if (strcmp(name, "datestyle") == 0)
		options->datestyle = defGetString((DefElem *) def);
	else if (strcmp(name, "intervalstyle") == 0)
		options->intervalstyle = defGetString((DefElem *) def);
	else if (streamext_view_is_setting(name))
		options->settings = lappend(options->settings,
									makeDefElem(pstrdup(name), (Node *) makeString(defGetString((DefElem *) def)), -1));
	else
		streamext_view_option_unknown(def->defname);
}

List *
streamext_views_with_options(void)
{
	Relation	classes = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(classes, InvalidOid, false, NULL, 0, NULL);
	List	   *views = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class class = (Form_pg_class) GETSTRUCT(tuple);

		if (class->relkind == RELKIND_VIEW && !heap_attisnull(tuple, Anum_pg_class_reloptions, NULL))
			views = lappend_oid(views, class->oid);
	}
	systable_endscan(scan);
	table_close(classes, AccessShareLock);
	return views;
}

ContinuousViewOptions
streamext_view_options_of(Datum reloptions)
{
	ContinuousViewOptions options = { 0 };
	ListCell			 *lc;

	foreach (lc, untransformRelOptions(reloptions))
		view_option(&options, lfirst_node(DefElem, lc));
	if (options.emit_changes)
	{
		options.changes_into = options.into;
		options.into = NULL;
	}
	return options;
}

ContinuousViewOptions
streamext_view_options(Oid relid)
{
	ContinuousViewOptions options = { 0 };
	HeapTuple			  tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		return options;
	if (((Form_pg_class) GETSTRUCT(tuple))->relkind == RELKIND_VIEW)
	{
		bool  isnull;
		Datum reloptions = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);

		if (!isnull)
			options = streamext_view_options_of(reloptions);
	}
	ReleaseSysCache(tuple);
	return options;
}
