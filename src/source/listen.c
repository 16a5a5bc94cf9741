/*
 * source/listen.c
 *		host:port. What the functions promise is in source/listen.h.
 */
#include "base/streamext.h"

#include "source/listen.h"

bool
streamext_listen_address(const char *listen, char **host, char **port)
{
	const char *colon = strrchr(listen, ':');
	Size		size = colon != NULL ? colon - listen : 0;
	char	   *end;
	long		number;

	if (colon == NULL || size == 0)
		return false;
	*host = pnstrdup(listen, size);
	if ((*host)[0] == '[' && size > 2 && (*host)[size - 1] == ']')
	{
		(*host)[size - 1] = '\0';
		(*host)++;
	}
	else if (strchr(*host, ':') != NULL)
		return false;
	if (strcmp(*host, "*") == 0)
		(*host)[0] = '\0';
	*port = pstrdup(colon + 1);
	errno = 0;
	number = strtol(*port, &end, 10);
	return errno == 0 && end != *port && *end == '\0' && number >= 1 && number <= 65535;
}

void
streamext_listen_check(const OptionSpec *spec, const char *value)
{
	char *host, *port;

	if (!streamext_listen_address(value, &host, &port))
		streamext_option_invalid(spec, value,
								 "The value must be like 127.0.0.1:8088 or [::1]:8088; *:8088 is all addresses.");
}
