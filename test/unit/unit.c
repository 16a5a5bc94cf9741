/*
 * unit/unit.c
 *		Runs the unit tests; the last line is "N passed, N failed".
 */
#include "postgres.h"

#include "common/file_utils.h"
#include "miscadmin.h"

#include "unit.h"

int			unit_failures;
static char unit_path[MAXPGPATH];

const char *
unit_directory(void)
{
	const char *root = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";

	snprintf(unit_path, sizeof(unit_path), "%s/streamext-unit-XXXXXX", root);
	if (mkdtemp(unit_path) == NULL)
		abort();
	DataDir = unit_path;
	return unit_path;
}

static bool
unit_run(void (*test)(void))
{
	int before = unit_failures;

	test();
	if (unit_path[0] != '\0')
	{
		char command[MAXPGPATH + 16];

		snprintf(command, sizeof(command), "rm -rf '%s'", unit_path);
		if (system(command) != 0)
			unit_failures++;
		unit_path[0] = '\0';
	}
	server_reset();
	return unit_failures == before;
}

int
main(void)
{
	void (*tests[])(void) = { test_checksum, test_chunk,	 test_clip,	 test_csv,		  test_feed,
							  test_flume,	 test_journal,	 test_key,	 test_mqtt_topic, test_number,
							  test_time,	 test_unix_time, test_window };
	int passed = 0;

	server_start();
	for (int i = 0; i < lengthof(tests); i++)
		passed += unit_run(tests[i]);
	printf("unit: %d passed, %d failed\n", passed, (int) lengthof(tests) - passed);
	return passed == lengthof(tests) ? 0 : 1;
}
