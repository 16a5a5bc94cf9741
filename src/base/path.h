/*
 * base/path.h
 *		Where in a JSON payload a column's value is: the option path, step by step.
 *
 * A path is accessors of PostgreSQL's jsonpath, one after the other: `$.a.b[2]."a key"`. `$` alone is the whole payload. `$.` in
 * front may be left out, and a key need not be quoted unless it holds what means something in a path: . [ ] ( ) * " \ or space
 * at an end. Makes no PostgreSQL call.
 */
#ifndef STREAMEXT_DECODE_PATH_H
#define STREAMEXT_DECODE_PATH_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C"
{
#endif

#define STREAMEXT_PATH_HINT \
	"A path is like a.b[0].c or \"a.b\".c, optionally behind \"$.\"; \"$\" is the whole payload."

	typedef enum PathStep
	{
		PATH_KEY,
		PATH_INDEX,
		PATH_END,
		PATH_FAULT
	} PathStep;

	typedef struct PathReader
	{
		const char *at;
		bool		first; /* nothing has been read yet */
		const char *fault; /* after PATH_FAULT: what is wrong, a sentence; static text */
		size_t		size;  /* of a key, in the caller's buffer; not NUL-terminated */
		long		index;
		int			steps; /* that were read */
	} PathReader;

	extern void streamext_path_begin(PathReader *reader, const char *path);

	/* The next step; a key goes to the buffer, which must be as large as the whole path. */
	extern PathStep streamext_path_next(PathReader *reader, char *key);

#ifdef __cplusplus
}
#endif

#endif /* STREAMEXT_DECODE_PATH_H */
