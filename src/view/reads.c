/*
 * view/reads.c
 *		Which stream, or which continuous view's closed windows, a query reads, wherever in it that stands. What the functions promise is in view/reads.h.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "stream/definition.h"
#include "view/check.h"
#include "view/compile.h"
#include "view/reads.h"

/* Where nothing was found: what is named twice, and in it something twice, and so on, would be looked at times without number. */
typedef struct ReadsNothing
{
	List *ctes;	 /* CommonTableExpr, by address */
	List *views; /* OIDs */
} ReadsNothing;

typedef struct ReadsLevel
{
	const Query				*query;
	const struct ReadsLevel *outer;	  /* the query around it; NULL: none, it is a view's or the whole */
	const struct ReadsLevel *around;  /* the same, also of a view's */
	Oid						 view;	  /* whose query it is; InvalidOid: none's */
	bool					 windows; /* continuous views whose windows close are looked for, else streams */
	List				   **parts;	  /* or NULL; gets what each part of a UNION ALL reads */
	ReadsNothing			*nothing;
} ReadsLevel;

static Oid reads_find(const ReadsLevel *level);

bool
streamext_view_is_derived(const Query *query)
{
	return streamext_view_is_stateless(query) && query->distinctClause == NIL &&
		   (query->setOperations == NULL || streamext_view_is_union_all(query->setOperations));
}

bool
streamext_view_is_union_all(const Node *node)
{
	const SetOperationStmt *operation = (const SetOperationStmt *) node;

	if (!IsA(node, SetOperationStmt))
		return true;
	return operation->op == SETOP_UNION && operation->all && streamext_view_is_union_all(operation->larg) &&
		   streamext_view_is_union_all(operation->rarg);
}

/* CREATE OR REPLACE can make views that come from each other; these hold nothing. */
static bool
reads_is_cycle(const ReadsLevel *level, Oid viewoid)
{
	for (; level != NULL; level = level->around)
		if (level->view == viewoid)
			return true;
	return false;
}

/* Of continuous views only derived streams are as good as ordinary views; one that aggregates is found itself. */
static Oid
reads_find_in_view(const ReadsLevel *around, Oid viewoid)
{
	ContinuousViewOptions options = streamext_view_options(viewoid);
	Relation			  rel;
	Oid					  result = InvalidOid;

	if (reads_is_cycle(around, viewoid) || list_member_oid(around->nothing->views, viewoid))
		return InvalidOid;
	rel = try_relation_open(viewoid, AccessShareLock);
	if (rel == NULL)
		return InvalidOid;
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL)
	{
		ReadsLevel level = {
			get_view_query(rel), NULL, around, viewoid, around->windows, around->parts, around->nothing
		};

		if (options.continuous && !streamext_view_is_derived(level.query))
			result = around->windows ? viewoid : InvalidOid;
		else if (!options.continuous || options.into == NULL)
			result = reads_find(&level);
	}
	relation_close(rel, NoLock);
	if (!OidIsValid(result))
		around->nothing->views = lappend_oid(around->nothing->views, viewoid);
	return result;
}

Oid
streamext_view_of_entry(const RangeTblEntry *rte)
{
	Oid relid = InvalidOid;

	if (rte->rtekind != RTE_SUBQUERY || rte->subquery == NULL)
		return InvalidOid;
#if PG_VERSION_NUM >= 160000
	if (rte->relkind == RELKIND_VIEW)
		relid = rte->relid;
#else
	if (rte->subquery->rtable != NIL)
	{
		const RangeTblEntry *old = linitial_node(RangeTblEntry, rte->subquery->rtable);

		if (old->rtekind == RTE_RELATION && old->relkind == RELKIND_VIEW && old->eref != NULL &&
			strcmp(old->eref->aliasname, "old") == 0)
			relid = old->relid;
	}
#endif
	return OidIsValid(relid) && streamext_view_options(relid).continuous ? relid : InvalidOid;
}

static Oid
reads_find_in_cte(const ReadsLevel *level, const RangeTblEntry *rte)
{
	ListCell *lc;
	Oid		  result;

	for (Index up = 0; up < rte->ctelevelsup && level != NULL; up++)
		level = level->outer;
	if (rte->self_reference || level == NULL)
		return InvalidOid;
	foreach (lc, level->query->cteList)
	{
		const CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (strcmp(cte->ctename, rte->ctename) == 0 && !cte->cterecursive)
		{
			ReadsLevel inner = {
				(const Query *) cte->ctequery, level, level, InvalidOid, level->windows, level->parts, level->nothing
			};

			if (list_member_ptr(level->nothing->ctes, cte))
				return InvalidOid;
			result = reads_find(&inner);
			if (!OidIsValid(result))
				level->nothing->ctes = lappend(level->nothing->ctes, unconstify(CommonTableExpr *, cte));
			return result;
		}
	}
	return InvalidOid;
}

static Oid
reads_find_in_entry(const ReadsLevel *level, const RangeTblEntry *rte)
{
	ReadsLevel inner = { rte->subquery, level, level, InvalidOid, level->windows, level->parts, level->nothing };
	Oid		   view;

	switch (rte->rtekind)
	{
		case RTE_RELATION:
			if (rte->relkind == RELKIND_FOREIGN_TABLE)
				return streamext_stream_kind(rte->relid) != NULL ? rte->relid : InvalidOid;
			return rte->relkind == RELKIND_VIEW ? reads_find_in_view(level, rte->relid) : InvalidOid;
		case RTE_SUBQUERY:
			view = streamext_view_of_entry(rte);
			if (OidIsValid(view) && !streamext_view_is_derived(rte->subquery))
				return level->windows ? view : InvalidOid;
			return rte->subquery != NULL ? reads_find(&inner) : InvalidOid;
		case RTE_CTE:
			return reads_find_in_cte(level, rte);
		default:
			return InvalidOid;
	}
}

static Oid
reads_find_in_from(const ReadsLevel *level, const Node *node)
{
	Oid		  result = InvalidOid;
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		return reads_find_in_entry(level, rt_fetch(((const RangeTblRef *) node)->rtindex, level->query->rtable));
	if (IsA(node, JoinExpr))
	{
		result = reads_find_in_from(level, ((const JoinExpr *) node)->larg);
		return OidIsValid(result) ? result : reads_find_in_from(level, ((const JoinExpr *) node)->rarg);
	}
	foreach (lc, ((const FromExpr *) node)->fromlist)
		if (!OidIsValid(result))
			result = reads_find_in_from(level, lfirst(lc));
	return result;
}

static Oid
reads_find(const ReadsLevel *level)
{
	const Query *query = level->query;
	Oid			 result = InvalidOid;
	ListCell	*lc;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (query->jointree == NULL)
		return InvalidOid;
	if (query->setOperations == NULL)
		return reads_find_in_from(level, (const Node *) query->jointree);
	foreach (lc, query->rtable)
	{
		Oid found = lfirst_node(RangeTblEntry, lc)->rtekind == RTE_SUBQUERY ? reads_find_in_entry(level, lfirst(lc))
																			: InvalidOid;

		result = OidIsValid(result) ? result : found;
		if (level->parts != NULL && OidIsValid(found))
			*level->parts = list_append_unique_oid(*level->parts, found);
	}
	return result;
}

Oid
streamext_view_found_in_entry(const Query *query, const RangeTblEntry *rte, bool windows)
{
	ReadsNothing nothing = { 0 };
	ReadsLevel	 level = { query, NULL, NULL, InvalidOid, windows, NULL, &nothing };

	return reads_find_in_entry(&level, rte);
}

/* A stream comes before continuous views, which could only be joined with it. */
Oid
streamext_view_stream_of(const Query *query)
{
	return streamext_view_parts_of(query, NULL);
}

Oid
streamext_view_parts_of(const Query *query, List **parts)
{
	ReadsNothing nothing[2] = { 0 };
	ReadsLevel	 level = { query, NULL, NULL, InvalidOid, false, parts, &nothing[0] };
	Oid			 result = reads_find(&level);

	level.windows = true;
	level.nothing = &nothing[1];
	return OidIsValid(result) ? result : reads_find(&level);
}

bool
streamext_union_is(const RangeTblEntry *entry)
{
	return entry->rtekind == RTE_SUBQUERY && entry->subquery != NULL && entry->subquery->setOperations != NULL &&
		   streamext_view_is_union_all(entry->subquery->setOperations) &&
		   OidIsValid(streamext_view_stream_of(entry->subquery));
}

/* ---- by the rule of a view ---- */

Oid
streamext_view_reads(Oid relid, LOCKMODE back, bool *several)
{
	Relation rel = try_relation_open(relid, AccessShareLock);
	Oid		 result = InvalidOid;
	List	*parts = NIL;

	*several = false;
	if (rel == NULL)
		return InvalidOid;
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL)
		result = streamext_view_parts_of(get_view_query(rel), &parts);
	relation_close(rel, back);
	*several = parts != NIL;
	return parts == NIL ? result : InvalidOid;
}

Oid
streamext_view_stream(Oid relid)
{
	bool several;
	Oid	 read = streamext_view_reads(relid, NoLock, &several);

	return several || get_rel_relkind(read) == RELKIND_VIEW ? relid : read;
}
