/*
 * read/hooks.c
 *		What this room puts into PostgreSQL: the methods of its executor nodes, and the planner's hooks (base/hooks.h).
 */
#include "postgres.h"

#include "base/hooks.h"
#include "read/scan.h"

void
streamext_scan_install_hooks(void)
{
	RegisterCustomScanMethods(&streamext_scan_methods);
	RegisterCustomScanMethods(&streamext_groups_methods);
	streamext_plan_install_hook();
	streamext_path_install_hook();
	streamext_groups_path_install_hook();
}
