/*
 * base/moment.c
 *		Texts of values that mean the same whenever and wherever they are read. What the functions promise is in base/moment.h.
 */
#include "base/streamext.h"

#include <ctype.h>

#include "base/identity.h"
#include "base/moment.h"

void
streamext_decoder_settings(void)
{
	streamext_identity_set("TimeZone", "UTC");
	streamext_identity_set("DateStyle", "ISO, MDY");
	streamext_identity_set("IntervalStyle", "postgres");
}

void
streamext_value_check_moment(const char *text)
{
	static const char *const words[] = { "now", "today", "tomorrow", "yesterday" };
	const char				*s = text;

	while (*s != '\0')
	{
		Size size = 0;

		while (isalpha((unsigned char) s[size]))
			size++;
		for (int i = 0; size > 0 && i < lengthof(words); i++)
			if (strlen(words[i]) == size && pg_strncasecmp(s, words[i], size) == 0)
				ereport(ERROR, (errcode(ERRCODE_INVALID_DATETIME_FORMAT),
								errmsg("\"%s\" means another time whenever it is read", text)));
		s += Max(size, 1);
	}
}
