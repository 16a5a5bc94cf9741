/*
 * base/clip.c
 *		Texts in buffers of fixed size (see base/clip.h).
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "base/clip.h"

void
streamext_clip(char *to, const char *text, Size size)
{
	Size length = strlen(text);

	/* of bytes that are no text pg_mbcliplen may count more than there are */
	if (length >= size)
		length = Min((Size) pg_mbcliplen(text, (int) Min(length, (Size) MaxAllocSize), (int) size - 1), size - 1);
	memcpy(to, text, length);
	to[length] = '\0';
}

void
streamext_clip_format(char *to, Size size, const char *format, ...)
{
	va_list args;
	int		needed;

	va_start(args, format);
	needed = vsnprintf(to, size, format, args);
	va_end(args);
	if (needed >= 0 && (Size) needed >= size)
		to[Min((Size) pg_mbcliplen(to, (int) strlen(to), (int) strlen(to)), strlen(to))] = '\0';
}
